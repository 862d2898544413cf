// caf.cpp - the local-message workloads of bench/actors.c on the C++ Actor Framework 0.17.
//
// usage: caf [spread|fanin|pingpong|ask|spawn|mem] ...     (all when none is named)
//
// One workload per process is fair to it: after another one its heap is scattered and it is slower.
// Two scheduler threads, work stealing as CAF ships it. Messages carry plain integers without atoms,
// the cheapest thing CAF can match. Every run checks its counts and is repeated with more messages
// until it lasts at least a second. One JSON line per workload on standard output.

#include <caf/all.hpp>

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

using namespace caf;

namespace {

constexpr uint64_t entities = 10000;
constexpr uint64_t spread_senders = 4;
constexpr uint64_t fanin_senders = 10;
constexpr uint64_t pairs = 16;
constexpr uint64_t window = 512;
constexpr uint64_t ack_every = 256;
constexpr uint64_t burst = 256;
constexpr uint64_t idle_actors = 300000;
constexpr double least_seconds = 1.0;

double now() {
	auto since = std::chrono::steady_clock::now().time_since_epoch();
	return std::chrono::duration<double>(since).count();
}

[[noreturn]] void fail(const char *bench, uint64_t got, uint64_t wanted) {
	std::fprintf(stderr, "caf %s: counted %llu, wanted %llu\n", bench,
		static_cast<unsigned long long>(got), static_cast<unsigned long long>(wanted));
	std::exit(1);
}

double resident_bytes() {
	long size = 0, resident = 0;
	std::FILE *file = std::fopen("/proc/self/statm", "r");
	if (file == nullptr || std::fscanf(file, "%ld %ld", &size, &resident) != 2) {
		resident = 0;
	}
	if (file != nullptr) {
		std::fclose(file);
	}
	return static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE));
}

// Message shapes: (uint64, uint64) work, (uint32) start or go on, (int64) ack, (int32) report.

struct entity_state {
	uint64_t sum = 0;
};

behavior entity(stateful_actor<entity_state> *self) {
	return {
		[=](uint64_t amount, uint64_t) { self->state.sum += amount; },
		[=](int32_t) { return self->state.sum; },
	};
}

struct sender_state {
	uint64_t sent = 0;
	uint64_t acked = 0;
};

behavior spread_sender(stateful_actor<sender_state> *self, const std::vector<actor> *targets,
	uint64_t first, uint64_t count, actor report) {
	return {
		[=](uint32_t) {
			auto &s = self->state;
			uint64_t at = (first + s.sent) % targets->size();
			for (uint64_t i = 0; i < burst && s.sent < count; i++) {
				self->send((*targets)[at], uint64_t{1}, ++s.sent);
				if (++at == targets->size()) {
					at = 0;
				}
			}
			if (s.sent < count) {
				self->send(self, uint32_t{0});
			} else {
				self->send(report, int32_t{1});
			}
		},
	};
}

double run_spread(actor_system &system, uint64_t messages) {
	scoped_actor main{system};
	std::vector<actor> targets;
	std::vector<actor> senders;
	for (uint64_t i = 0; i < entities; i++) {
		targets.push_back(system.spawn(entity));
	}
	uint64_t each = messages / spread_senders;
	for (uint64_t i = 0; i < spread_senders; i++) {
		senders.push_back(
			system.spawn(spread_sender, &targets, i * 7919, each, actor_cast<actor>(main)));
	}
	double start = now();
	for (auto &sender : senders) {
		main->send(sender, uint32_t{0});
	}
	for (uint64_t i = 0; i < spread_senders; i++) {
		main->receive([](int32_t) {});
	}
	for (auto &target : targets) {
		main->send(target, int32_t{0});
	}
	uint64_t sum = 0;
	for (uint64_t i = 0; i < entities; i++) {
		main->receive([&](uint64_t part) { sum += part; });
	}
	double seconds = now() - start;
	if (sum != each * spread_senders) {
		fail("spread", sum, each * spread_senders);
	}
	for (auto &list : {targets, senders}) {
		for (auto &each_actor : list) {
			anon_send_exit(each_actor, exit_reason::user_shutdown);
		}
	}
	return seconds;
}

behavior sink(stateful_actor<entity_state> *self, uint64_t wanted, actor report) {
	return {
		[=](uint64_t amount, uint64_t seq) {
			self->state.sum += amount;
			if (seq % ack_every == 0) {
				self->send(actor_cast<actor>(self->current_sender()),
					static_cast<int64_t>(seq));
			}
			if (self->state.sum == wanted) {
				self->send(report, int32_t{1});
			}
		},
	};
}

void fill_window(stateful_actor<sender_state> *self, const actor &target, uint64_t count) {
	auto &s = self->state;
	while (s.sent < count && s.sent - s.acked < window) {
		self->send(target, uint64_t{1}, ++s.sent);
	}
}

behavior window_sender(stateful_actor<sender_state> *self, actor target, uint64_t count) {
	return {
		[=](uint32_t) { fill_window(self, target, count); },
		[=](int64_t acked) {
			self->state.acked = static_cast<uint64_t>(acked);
			fill_window(self, target, count);
		},
	};
}

double run_fanin(actor_system &system, uint64_t messages) {
	scoped_actor main{system};
	uint64_t each = messages / fanin_senders;
	auto target = system.spawn(sink, each * fanin_senders, actor_cast<actor>(main));
	std::vector<actor> senders;
	for (uint64_t i = 0; i < fanin_senders; i++) {
		senders.push_back(system.spawn(window_sender, target, each));
	}
	double start = now();
	for (auto &sender : senders) {
		main->send(sender, uint32_t{0});
	}
	main->receive([](int32_t) {});
	double seconds = now() - start;
	for (auto &sender : senders) {
		anon_send_exit(sender, exit_reason::user_shutdown);
	}
	anon_send_exit(target, exit_reason::user_shutdown);
	return seconds;
}

behavior pong(event_based_actor *self) {
	return {
		[=](uint64_t left, uint64_t seq) {
			self->send(actor_cast<actor>(self->current_sender()), left, seq);
		},
	};
}

behavior ping(stateful_actor<sender_state> *self, actor partner, uint64_t count, actor report) {
	return {
		[=](uint32_t) { self->send(partner, count, uint64_t{0}); },
		[=](uint64_t left, uint64_t seq) {
			if (seq != self->state.sent++) {
				fail("pingpong", seq, self->state.sent - 1);
			}
			if (left == 0) {
				self->send(report, int32_t{1});
			} else {
				self->send(partner, left - 1, seq + 1);
			}
		},
	};
}

behavior server(stateful_actor<entity_state> *self) {
	return {
		[=](uint64_t amount) { return self->state.sum += amount; },
	};
}

void ask_next(stateful_actor<sender_state> *self, const actor &partner, uint64_t count,
	const actor &report) {
	self->request(partner, infinite, uint64_t{1}).then([=](uint64_t total) {
		if (total != ++self->state.sent) {
			fail("ask", total, self->state.sent);
		}
		if (total == count) {
			self->send(report, int32_t{1});
		} else {
			ask_next(self, partner, count, report);
		}
	});
}

behavior client(stateful_actor<sender_state> *self, actor partner, uint64_t count, actor report) {
	return {
		[=](uint32_t) { ask_next(self, partner, count, report); },
	};
}

template <class Front, class Back>
double run_pairs(actor_system &system, Front front, Back back, uint64_t each) {
	scoped_actor main{system};
	std::vector<actor> all;
	std::vector<actor> fronts;
	for (uint64_t i = 0; i < pairs; i++) {
		auto partner = system.spawn(back);
		auto first = system.spawn(front, partner, each, actor_cast<actor>(main));
		fronts.push_back(first);
		all.push_back(first);
		all.push_back(partner);
	}
	double start = now();
	for (auto &first : fronts) {
		main->send(first, uint32_t{0});
	}
	for (uint64_t i = 0; i < pairs; i++) {
		main->receive([](int32_t) {});
	}
	double seconds = now() - start;
	for (auto &one : all) {
		anon_send_exit(one, exit_reason::user_shutdown);
	}
	return seconds;
}

double run_pingpong(actor_system &system, uint64_t messages) {
	return run_pairs(system, ping, pong, messages / (2 * pairs));
}

double run_ask(actor_system &system, uint64_t calls) {
	return run_pairs(system, client, server, calls / pairs);
}

std::atomic<uint64_t> short_lives{0};

behavior short_life(event_based_actor *self, uint64_t wanted, const actor *report) {
	return {
		[=](uint64_t) {
			if (short_lives.fetch_add(1, std::memory_order_relaxed) + 1 == wanted) {
				self->send(*report, int32_t{1});
			}
			self->quit();
		},
	};
}

behavior spawner(
	stateful_actor<sender_state> *self, uint64_t count, uint64_t wanted, const actor *report) {
	return {
		[=](uint32_t) {
			auto &s = self->state;
			for (uint64_t i = 0; i < 64 && s.sent < count; i++, s.sent++) {
				self->send(self->spawn(short_life, wanted, report), uint64_t{1});
			}
			if (s.sent < count) {
				self->send(self, uint32_t{0});
			} else {
				self->quit();
			}
		},
	};
}

double run_spawn(actor_system &system, uint64_t actors) {
	scoped_actor main{system};
	auto report = actor_cast<actor>(main);
	short_lives = 0;
	uint64_t each = actors / 2;
	double start = now();
	for (int i = 0; i < 2; i++) {
		anon_send(system.spawn(spawner, each, each * 2, &report), uint32_t{0});
	}
	main->receive([](int32_t) {});
	double seconds = now() - start;
	if (short_lives != each * 2) {
		fail("spawn", short_lives, each * 2);
	}
	return seconds;
}

void print(const char *bench, double value, const char *unit, uint64_t count, double seconds) {
	std::printf("{\"peer\":\"caf\",\"bench\":\"%s\",\"value\":%.4f,\"unit\":\"%s\",\"count\":%llu,"
				"\"seconds\":%.3f}\n",
		bench, value, unit, static_cast<unsigned long long>(count), seconds);
	std::fflush(stdout);
}

void run_mem(actor_system &system) {
	scoped_actor main{system};
	std::vector<actor> all;
	all.reserve(idle_actors);
	double before = resident_bytes();
	for (uint64_t i = 0; i < idle_actors; i++) {
		all.push_back(system.spawn(entity));
		main->send(all.back(), uint64_t{1}, uint64_t{1});
	}
	uint64_t sum = 0;
	for (auto &one : all) {
		main->request(one, infinite, int32_t{0})
			.receive([&](uint64_t part) { sum += part; }, [](error &) {});
	}
	if (sum != idle_actors) {
		fail("mem", sum, idle_actors);
	}
	print("mem", (resident_bytes() - before) / static_cast<double>(idle_actors), "B/actor",
		idle_actors, 0);
	for (auto &one : all) {
		anon_send_exit(one, exit_reason::user_shutdown);
	}
}

struct workload {
	const char *name;
	double (*run)(actor_system &, uint64_t);
	uint64_t count; // first try
};

const workload workloads[] = {
	{"spread", run_spread, 4000000},
	{"fanin", run_fanin, 4800000},
	{"pingpong", run_pingpong, 2400000},
	{"ask", run_ask, 1200000},
	{"spawn", run_spawn, 320000},
};

void run_long_enough(actor_system &system, const workload &work) {
	uint64_t count = work.count;
	for (;;) {
		double seconds = work.run(system, count);
		if (seconds >= least_seconds) {
			print(work.name, static_cast<double>(count) / seconds / 1e6, "M/s", count, seconds);
			return;
		}
		double factor = seconds < 0.2 ? 5 : least_seconds / seconds * 1.2;
		count = static_cast<uint64_t>(static_cast<double>(count) * factor) / 960 * 960;
	}
}

bool wanted(int argc, char **argv, const char *name) {
	if (argc < 2) {
		return true;
	}
	for (int i = 1; i < argc; i++) {
		if (std::strcmp(argv[i], name) == 0) {
			return true;
		}
	}
	return false;
}

} // namespace

int main(int argc, char **argv) {
	actor_system_config config;
	config.set("scheduler.max-threads", size_t{2});
	actor_system system{config};
	// First, while the heap is still as it was: freed actors would hide the cost of new ones.
	if (wanted(argc, argv, "mem")) {
		run_mem(system);
		system.await_all_actors_done();
	}
	for (const auto &work : workloads) {
		if (wanted(argc, argv, work.name)) {
			run_long_enough(system, work);
			system.await_all_actors_done();
		}
	}
	return 0;
}
