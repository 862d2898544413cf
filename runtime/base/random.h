/*
 * random.h - seeded pseudo-random numbers for simulation, jitter and load; never for secrets.
 *
 * splitmix64 seeds and is good for single numbers; xoshiro256** (Blackman, Vigna) is the generator.
 * The same seed gives the same numbers on every machine and in every version.
 */
#ifndef RUNTIME_BASE_RANDOM_H
#define RUNTIME_BASE_RANDOM_H

#include <stdint.h>

struct rt_random {
	uint64_t word[4];
};

static inline uint64_t rt_random_splitmix(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static inline void rt_random_seed(struct rt_random *random, uint64_t seed)
{
	for (int i = 0; i < 4; i++) {
		random->word[i] = rt_random_splitmix(&seed);
	}
}

static inline uint64_t rt_random_rotl(uint64_t x, int k)
{
	return (x << k) | (x >> (64 - k));
}

static inline uint64_t rt_random_next(struct rt_random *random)
{
	uint64_t *s = random->word;
	uint64_t result = rt_random_rotl(s[1] * 5, 7) * 9;
	uint64_t t = s[1] << 17;
	s[2] ^= s[0];
	s[3] ^= s[1];
	s[1] ^= s[2];
	s[0] ^= s[3];
	s[2] ^= t;
	s[3] = rt_random_rotl(s[3], 45);
	return result;
}

/* Even over [0, bound); 0 when bound is 0. Lemire's multiplication; its bias is below 2^-32. */
static inline uint32_t rt_random_below(struct rt_random *random, uint32_t bound)
{
	return (uint32_t)(((rt_random_next(random) >> 32) * bound) >> 32);
}

#endif
