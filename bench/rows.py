"""The rows of the table, in the order of the aims they stand for.

A row compares one value of ours with one of a peer, measured in the same round: `ratio` is ours / peer
and must reach `least` (or stay below `most`). Without a peer the value itself is held against them.
A figure is (probe, field) of probes.py.
"""


class Row:
    def __init__(self, name, text, ours, peer=None, least=None, most=None, unit="", peer_name=""):
        self.name, self.text, self.ours, self.peer = name, text, ours, peer
        self.least, self.most, self.unit, self.peer_name = least, most, unit, peer_name

    def probes(self):
        figures = [self.ours] + (self.peer if isinstance(self.peer, list) else [self.peer])
        return [figure[0] for figure in figures if figure]

    def aim(self):
        if self.least is None and self.most is None:
            return "-"
        sign, bound = (">=", self.least) if self.least is not None else ("<=", self.most)
        return f"{sign} {bound:g}{'x' if self.peer else ' ' + self.unit}"

    def reached(self, figure):
        """figure: the ratio, or our value when there is no peer. None: nothing is asked."""
        if self.least is not None:
            return figure >= self.least
        if self.most is not None:
            return figure <= self.most
        return None

    def gap(self, figure):
        """How much is missing, as a factor above 1."""
        if self.least is not None:
            return self.least / figure if figure else float("inf")
        return figure / self.most


def _messages():
    rows = []
    for bench, text, places in (
            ("spread", "4 senders to 10,000 actors", [("", 10)]),
            ("fanin", "fan-in x10", [("", 8)]),
            ("pingpong", "ping-pong x16", [("local", 6), ("hash", 6), ("split", 3)]),
            ("ask", "ask x16", [("local", 6), ("hash", 6), ("split", 3)]),
            ("spawn", "spawn + message + quit", [("", 50)])):
        for place, least in places:
            name = f"local.{bench}" + (f".{place}" if place else "")
            where = {"local": ", co-located", "hash": ", hashed", "split": ", split over workers"}
            mine = (f"actors.{bench}" + (f".{place}" if place else ""), "value")
            for peer, bound in (("caf", least), ("erlang", None)):
                rows.append(Row(name, text + where.get(place, ""), mine, (f"{peer}.{bench}", "value"),
                                least=bound, unit="M/s", peer_name=peer))
    return rows


def _memory():
    mine = ("actors.mem", "value")
    return [
        Row("local.mem", "idle actor without its state", mine, most=160, unit="B"),
        Row("local.mem", "", mine, ("caf.mem", "value"), unit="B", peer_name="caf"),
        Row("local.mem", "", mine, ("erlang.mem", "value"), unit="B", peer_name="erlang"),
        Row("idle.cpu", "idle daemon, of one core", ("node.idle", "value"), most=0.1, unit="%"),
    ]


def _commands():
    def row(name, text, probe, *peers):
        return [Row(f"rpc.{name}", text if i == 0 else "", (f"rpc.{probe}", "value"),
                    (peer, "value"), least=least, unit="cmd/s", peer_name=label)
                for i, (peer, label, least) in enumerate(peers)]

    many = ("rpc.many256", "many")
    return [
        *row("many", "256 callers, 10,000 entities", "many256",
             ("redis.many64", "redis, 64 conn.", 4), ("redis.many256", "redis, 256 conn.", 2.5),
             ("postgres.many64", "postgresql, 64", 8)),
        *row("hot", "256 callers, one entity", "hot256",
             ("redis.hot64", "redis, 64 conn.", 3.5), ("redis.hot256", "redis, 256 conn.", 2.3)),
        *row("64", "64 callers", "many64", ("redis.many64", "redis, 64 conn.", 2)),
        *row("foreign", "foreign client, 64 contexts", "foreign64",
             ("redis.many64", "redis, 64 conn.", 0.9)),
        Row("rpc.cpu.server", "server CPU per command", (many[0], "server_us"), most=8, unit="us"),
        Row("rpc.cpu.client", "client CPU per command", (many[0], "client_us"), most=1, unit="us"),
        Row("rpc.one", "one caller, p50", ("rpc.one", "p50_us"),
            [("floor.sync", "p50_us"), ("floor.echo", "p50_us")], most=1.6, unit="us",
            peer_name="fdatasync + nng"),
    ]


def _storage():
    return [
        Row("store.durable", "durable and indexed events", ("store.durable", "value"),
            ("store.raw", "value"), least=0.16, unit="/s", peer_name="raw append + sync"),
        Row("store.amplification", "write amplification", ("store.amplification", "value"),
            most=2.0, unit="x"),
        Row("store.disk", "disk / compressed payload", ("store.disk", "value"), most=1.1, unit="x"),
        Row("recovery.cold", "recovery of 50 events, cold, p50", ("store.cold", "value"), most=5000,
            unit="us"),
        Row("recovery.warm", "recovery of 50 events, warm, p50", ("store.warm", "value"), most=250,
            unit="us"),
        Row("recovery.snapshot", "recovery by snapshot, cold, p50", ("store.snapshot", "value"),
            most=300, unit="us"),
        Row("feed.scan", "feed scan, cold", ("store.feed", "value"), least=2e6, unit="events/s"),
    ]


def _replication():
    def steps(probe, text, most):
        rows = [Row(f"raft.{probe}.{batch}", f"{text}, batches of {batch}",
                    (f"raft.{probe}", f"leader{batch}"), unit="ns", most=bound)
                for batch, bound in ((1, None), (10, None), (100, most))]
        return [Row(f"raft.{probe}.message", f"{text}, an idle message",
                    (f"raft.{probe}", "message"), unit="ns"), *rows]

    def one(batch):
        probe = f"raft.one{batch}"
        return [Row(f"raft.one.{batch}", f"one voter, batches of {batch}", (probe, "value"),
                    (probe, "straight"), least=0.9, unit="/s", peer_name="straight batch"),
                Row(f"raft.one.{batch}.p50", "one voter, more than straight", (probe, "more_us"),
                    most=20, unit="us"),
                Row(f"raft.one.{batch}.cpu", "one voter, more of the worker", (probe, "more_cpu_us"),
                    unit="us")]

    return [
        *steps("core", "core", None), *steps("host", "core, host, codec", 300),
        Row("raft.encode", "a record into a message", ("raft.codec", "value"), unit="ns"),
        Row("raft.decode", "a record out of it, checked", ("raft.codec", "decode"), unit="ns"),
        Row("raft.mem.one", "idle group, one voter", ("raft.memory", "one"), most=2048, unit="B"),
        Row("raft.mem.three", "idle member of three", ("raft.memory", "three"), most=2048, unit="B"),
        *one(1), *one(100),
    ]


def _clusters():
    three, one = "cluster.3.256", "cluster.1.256"

    def against(name, text, field, unit, **bounds):
        return Row(f"cluster.{name}", text, (three, field), (one, field), unit=unit,
                   peer_name="1 node", **bounds)

    def latency(callers, core):
        name, figure = f"cluster.latency.{callers}", (f"cluster.3.{callers}", "p50_us")
        least = [("raft.latency", core), ("floor.sync", "p50_us"), ("floor.echo", "p50_us"),
                 ("floor.echo", "p50_us")]
        text = "3 nodes, one caller, p50" if callers == 1 else f"3 nodes, {callers} callers, p50"
        return [
            Row(name, text, figure, (f"cluster.1.{callers}", "p50_us"), unit="us",
                peer_name="1 node"),
            Row(name, "", figure, least, unit="us", peer_name="core+sync+2 trips"),
            Row(name + ".core", "of it the Raft core alone", ("raft.latency", core), unit="us"),
        ]

    return [
        Row("cluster.many", "3 nodes, 256 callers", (three, "value"), least=40000, unit="cmd/s"),
        against("many", "", "value", "cmd/s"),
        against("many.p50", "3 nodes, 256 callers, p50", "p50_us", "us"),
        against("many.p99", "3 nodes, 256 callers, p99", "p99_us", "us"),
        against("cpu", "CPU of all nodes per command", "nodes_us", "us"),
        against("cpu.busiest", "CPU of the busiest node", "busiest_us", "us"),
        Row("cluster.cpu.client", "client CPU per command", (three, "client_us"), unit="us"),
        Row("cluster.grow", "3 nodes of 0.4 cores each", ("cluster.quota3.1024", "value"),
            ("cluster.quota1.1024", "value"), unit="cmd/s", peer_name="1 such node"),
        *latency(1, "p50_us"), *latency(16, "p50_16_us"),
        Row("cluster.mem.million", "replica behind 1 M records", ("raft.memory", "million_kib"),
            most=1024, unit="KiB"),
    ]


ROWS = _messages() + _memory() + _commands() + _storage() + _replication() + _clusters()


def chosen(words):
    """Rows whose name contains one of the words; all for no words."""
    return [row for row in ROWS if not words or any(word in row.name for word in words)]
