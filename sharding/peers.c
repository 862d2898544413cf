#include "sharding/peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/assert.h"
#include "runtime/base/clock.h"
#include "runtime/base/log.h"
#include "sharding/region.h"
#include "sharding/transport.h"

#define REFUSED_FOR_MS 10000u /* by everybody, for so long: this node is not wanted */
#define TEXT_MAX       256u
#define LEFT_WORDS     "has left the cluster"

struct known {
	uint64_t node;
	char key[SH_ID_CHARS + 1];
	char url[TEXT_MAX];
	bool left, up;
};

struct parcel;

/* Consensus does not wait behind other posts: its frames stand in a list of their own, which the
 * region empties before it looks at the clock. */
struct inbox {
	struct rt_post post; /* first */
	struct sh_peers *peers;
	uv_mutex_t lock;
	struct parcel *first, **last;
	bool posted;
};

struct sh_peers {
	struct sh_peers_options options;
	struct inbox *inboxes; /* by worker */
	uint32_t worker_count;
	struct sh_transport *transport;
	struct sh_wire wire;
	uint64_t instance;
	char url[TEXT_MAX];
	_Atomic bool closed;

	uv_mutex_t lock;
	struct known *known;
	uint32_t known_count;
	uint32_t up_count;
	uint64_t refused_since_ms; /* 0: not, or somebody accepted */
	bool refused_said;
};

/* ---- to the workers ---- */
struct parcel {
	struct rt_post post; /* first */
	struct parcel *next; /* in an inbox */
	struct sh_peers *peers;
	struct sh_frame *frame;
};

static void deliver(struct rt_worker *worker, struct rt_post *post)
{
	struct parcel *parcel = (struct parcel *)post;
	struct sh_frame *frame = parcel->frame;
	if (!atomic_load_explicit(&parcel->peers->closed, memory_order_acquire)) {
		sh_region_frame(rt_worker_data(worker), frame->from, frame->lane, frame->bytes);
	}
	sh_frame_release(frame);
	free(parcel);
}

static void empty(struct inbox *inbox, struct rt_worker *worker, bool by_post)
{
	uv_mutex_lock(&inbox->lock);
	struct parcel *parcel = inbox->first;
	inbox->first = NULL;
	inbox->last = &inbox->first;
	inbox->posted = inbox->posted && !by_post;
	uv_mutex_unlock(&inbox->lock);
	for (struct parcel *next; parcel != NULL; parcel = next) {
		next = parcel->next;
		deliver(worker, &parcel->post);
	}
}

static void empty_by_post(struct rt_worker *worker, struct rt_post *post)
{
	empty((struct inbox *)post, worker, true);
}

void sh_peers_drain(struct sh_peers *peers, struct rt_worker *worker)
{
	empty(&peers->inboxes[rt_worker_index(worker)], worker, false);
}

static void put(struct inbox *inbox, struct rt_worker *worker, struct parcel *parcel)
{
	uv_mutex_lock(&inbox->lock);
	*inbox->last = parcel;
	inbox->last = &parcel->next;
	bool post = !inbox->posted;
	inbox->posted = true;
	uv_mutex_unlock(&inbox->lock);
	if (post) {
		inbox->post.next = NULL;
		rt_worker_post_always(worker, &inbox->post);
	}
}

static void on_receive(void *arg, struct sh_frame *frame)
{
	struct sh_peers *peers = arg;
	struct rt_system *system = peers->options.system;
	uint32_t count = rt_system_worker_count(system);
	uint64_t workers = sh_region_frame_workers(
		frame->lane, frame->bytes, peers->options.shard_count, count);
	sh_frame_hold(frame, (uint32_t)__builtin_popcountll(workers));
	for (uint32_t i = 0; i < count; i++) {
		if ((workers >> i & 1) == 0) {
			continue;
		}
		struct parcel *parcel = malloc(sizeof(*parcel));
		RT_ASSERT(parcel != NULL);
		*parcel = (struct parcel){.post.run = deliver, .peers = peers, .frame = frame};
		if (frame->lane == SH_LANE_RAFT) {
			put(&peers->inboxes[i], rt_system_worker(system, i), parcel);
		} else {
			rt_worker_post_always(rt_system_worker(system, i), &parcel->post);
		}
	}
	sh_frame_release(frame);
}

struct news {
	struct rt_post post; /* first */
	struct sh_peers *peers;
	uint64_t node;
	bool up;
};

static void tell(struct rt_worker *worker, struct rt_post *post)
{
	struct news *news = (struct news *)post;
	if (!atomic_load_explicit(&news->peers->closed, memory_order_acquire)) {
		sh_region_link(rt_worker_data(worker), news->node, news->up);
	}
	free(news);
}

static struct known *find(const struct sh_peers *peers, uint64_t node)
{
	for (uint32_t i = 0; i < peers->known_count; i++) {
		if (peers->known[i].node == node) {
			return &peers->known[i];
		}
	}
	return NULL;
}

static void on_changed(void *arg, uint64_t node, bool up)
{
	struct sh_peers *peers = arg;
	struct rt_system *system = peers->options.system;
	rt_log(RT_LOG_INFO, "peers", "node %llu %s", (unsigned long long)node,
		up ? "is connected" : "cannot be reached");
	uv_mutex_lock(&peers->lock);
	struct known *known = find(peers, node);
	if (known != NULL) {
		known->up = up;
	}
	peers->up_count += up ? 1u : 0u;
	peers->up_count -= up || peers->up_count == 0 ? 0u : 1u;
	peers->refused_since_ms = up ? 0 : peers->refused_since_ms;
	uv_mutex_unlock(&peers->lock);
	for (uint32_t i = 0; i < rt_system_worker_count(system); i++) {
		struct news *news = malloc(sizeof(*news));
		RT_ASSERT(news != NULL);
		*news = (struct news){.post.run = tell, .peers = peers, .node = node, .up = up};
		rt_worker_post_always(rt_system_worker(system, i), &news->post);
	}
}

/* ---- who is who ---- */
/* Calls back into the transport are made from a worker, never from inside its callback. */
struct dial {
	struct rt_post post; /* first */
	struct sh_peers *peers;
	uint64_t node;
	char url[TEXT_MAX];
};

static void dial(struct rt_worker *worker, struct rt_post *post)
{
	struct dial *dial = (struct dial *)post;
	(void)worker;
	if (!atomic_load_explicit(&dial->peers->closed, memory_order_acquire)) {
		rt_err err = sh_transport_peer(dial->peers->transport, dial->node, dial->url);
		if (err != RT_OK) {
			rt_log(RT_LOG_WARN, "peers", "node %llu at %s: %s",
				(unsigned long long)dial->node, dial->url, rt_err_text(err));
		}
	}
	free(dial);
}

static void dial_later(struct sh_peers *peers, uint64_t node, const char *url)
{
	struct dial *later = malloc(sizeof(*later));
	RT_ASSERT(later != NULL);
	*later = (struct dial){.post.run = dial, .peers = peers, .node = node};
	snprintf(later->url, sizeof(later->url), "%s", url);
	rt_worker_post_always(rt_system_worker(peers->options.system, 0), &later->post);
}

static bool on_known(void *arg, const struct sh_identity *who, char *why, size_t room)
{
	struct sh_peers *peers = arg;
	bool good = false;
	bool moved = false;
	uv_mutex_lock(&peers->lock);
	struct known *known = find(peers, who->node);
	if (known == NULL) {
		snprintf(why, room, "node %llu is not known as a member here (yet)",
			(unsigned long long)who->node);
	} else if (known->left) {
		snprintf(why, room, "node %llu " LEFT_WORDS, (unsigned long long)who->node);
	} else if (strcmp(known->key, who->key) != 0) {
		snprintf(why, room,
			"node %llu has other data than the member of that number: its key differs",
			(unsigned long long)who->node);
	} else {
		good = true;
		/* Who says so may be a copy of a node that is still there. */
		moved = !known->up && who->peer != NULL && who->peer[0] != '\0' &&
			strcmp(known->url, who->peer) != 0;
		if (moved) {
			snprintf(known->url, sizeof(known->url), "%s", who->peer);
		}
	}
	uv_mutex_unlock(&peers->lock);
	if (moved) {
		dial_later(peers, who->node, who->peer);
	}
	return good;
}

static void on_refused(void *arg, uint64_t node, const char *why)
{
	struct sh_peers *peers = arg;
	uint64_t now_ms = rt_clock_now_ns() / 1000000u;
	uv_mutex_lock(&peers->lock);
	if (peers->refused_since_ms == 0) {
		peers->refused_since_ms = now_ms;
	}
	bool say = peers->up_count == 0 && !peers->refused_said &&
		   now_ms - peers->refused_since_ms >= REFUSED_FOR_MS;
	peers->refused_said = peers->refused_said || say;
	uv_mutex_unlock(&peers->lock);
	(void)node;
	/* The last table may not have reached it; a peer's words do as well. */
	if (strstr(why, LEFT_WORDS) != NULL && peers->options.left != NULL) {
		peers->options.left(peers->options.arg);
	} else if (say && peers->options.refused != NULL) {
		peers->options.refused(peers->options.arg, why);
	}
}

static const struct sh_transport_port port = {
	.receive = on_receive,
	.changed = on_changed,
	.known = on_known,
	.refused = on_refused,
};

static void take_member(struct sh_peers *peers, const Troupe__Cluster__Member *member)
{
	struct known *known = find(peers, member->node);
	if (known == NULL) {
		struct known *grown =
			realloc(peers->known, (peers->known_count + 1u) * sizeof(*grown));
		RT_ASSERT(grown != NULL);
		peers->known = grown;
		known = &grown[peers->known_count++];
		*known = (struct known){.node = member->node};
	}
	snprintf(known->key, sizeof(known->key), "%s", member->key);
	known->left = member->state == TROUPE__CLUSTER__NODE_STATE__NODE_LEFT;
	if (member->peer[0] != '\0') {
		snprintf(known->url, sizeof(known->url), "%s", member->peer);
	}
}

void sh_peers_members(struct sh_peers *peers, Troupe__Cluster__Member *const *members, size_t count)
{
	uv_mutex_lock(&peers->lock);
	for (size_t i = 0; i < count; i++) {
		take_member(peers, members[i]);
	}
	uv_mutex_unlock(&peers->lock);
	for (size_t i = 0; i < count; i++) {
		const Troupe__Cluster__Member *member = members[i];
		bool left = member->state == TROUPE__CLUSTER__NODE_STATE__NODE_LEFT;
		if (member->node == peers->options.self.node ||
			(!left && member->peer[0] == '\0')) {
			continue;
		}
		rt_err err = sh_transport_peer(
			peers->transport, member->node, left ? NULL : member->peer);
		if (err != RT_OK) {
			rt_log(RT_LOG_WARN, "peers", "node %llu at %s: %s",
				(unsigned long long)member->node, member->peer, rt_err_text(err));
		}
	}
}

/* ---- wire ---- */
static rt_err wire_send(void *arg, uint64_t node, enum sh_lane lane, struct rt_bytes frame)
{
	return sh_transport_send(((struct sh_peers *)arg)->transport, node, lane, frame);
}

static bool wire_up(void *arg, uint64_t node)
{
	return sh_transport_up(((struct sh_peers *)arg)->transport, node);
}

const struct sh_wire *sh_peers_wire(const struct sh_peers *peers)
{
	return peers == NULL ? NULL : &peers->wire;
}

uint64_t sh_peers_instance(const struct sh_peers *peers)
{
	return peers == NULL ? 0 : peers->instance;
}

const char *sh_peers_url(const struct sh_peers *peers)
{
	return peers == NULL ? "" : peers->url;
}

/* ---- life ---- */
rt_err sh_peers_open(
	const struct sh_peers_options *options, struct sh_peers **out, struct rt_errinfo *info)
{
	struct sh_peers *peers = calloc(1, sizeof(*peers));
	if (peers == NULL) {
		return rt_errinfo_set(info, RT_E_NOMEM, "peers");
	}
	peers->options = *options;
	uv_mutex_init(&peers->lock);
	peers->worker_count = rt_system_worker_count(options->system);
	peers->inboxes = calloc(peers->worker_count, sizeof(*peers->inboxes));
	for (uint32_t i = 0; peers->inboxes != NULL && i < peers->worker_count; i++) {
		struct inbox *inbox = &peers->inboxes[i];
		*inbox = (struct inbox){.post.run = empty_by_post, .peers = peers};
		inbox->last = &inbox->first;
		uv_mutex_init(&inbox->lock);
	}
	while (peers->instance == 0) {
		(void)uv_random(NULL, NULL, &peers->instance, sizeof(peers->instance), 0, NULL);
	}
	peers->wire = (struct sh_wire){.send = wire_send, .up = wire_up, .arg = peers};
	struct sh_transport_options transport = {.listen = options->listen,
		.silence_ms = options->silence_ms,
		.port = &port,
		.arg = peers,
		.self = {.node = options->self.node,
			.instance = peers->instance,
			.incarnation = options->self.incarnation,
			.rpc = "",
			.peer = options->advertise}};
	memcpy(transport.self.cluster, options->self.cluster, sizeof(transport.self.cluster));
	memcpy(transport.self.key, options->self.key, sizeof(transport.self.key));
	rt_err err = peers->inboxes == NULL
			     ? rt_errinfo_set(info, RT_E_NOMEM, "peers")
			     : sh_transport_open(&transport, &peers->transport, info);
	if (err != RT_OK) {
		sh_peers_close(peers);
		sh_peers_free(peers);
		return err;
	}
	snprintf(peers->url, sizeof(peers->url), "%s",
		options->advertise != NULL ? options->advertise
					   : sh_transport_url(peers->transport));
	*out = peers;
	return RT_OK;
}

void sh_peers_close(struct sh_peers *peers)
{
	if (peers != NULL) {
		atomic_store_explicit(&peers->closed, true, memory_order_release);
		sh_transport_close(peers->transport);
		peers->transport = NULL;
	}
}

void sh_peers_free(struct sh_peers *peers)
{
	if (peers != NULL) {
		for (uint32_t i = 0; peers->inboxes != NULL && i < peers->worker_count; i++) {
			empty(&peers->inboxes[i], NULL, false);
			uv_mutex_destroy(&peers->inboxes[i].lock);
		}
		free(peers->inboxes);
		uv_mutex_destroy(&peers->lock);
		free(peers->known);
		free(peers);
	}
}
