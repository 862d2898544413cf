"""The network between the nodes under test: one namespace each where this machine allows it, so that
any direction of any pair can be cut; else loopback addresses, which nothing can cut.

	node k --veth-- switch (forwards, drops what is cut, counts the drops) --veth-- this process (0)
"""
import atexit
import glob
import json
import os
import random
import shutil
import subprocess

HERE = 0  # the clients' end, in pairs of `cut`
MARK = "troupe-chaos-"


def run(*words, text=None):
	done = subprocess.run(words, input=text, capture_output=True, text=True)
	if done.returncode != 0:
		raise OSError(f"{' '.join(words)}: {done.stderr.strip()}")
	return done.stdout


def missing():
	"""Why there can be no namespaces here, or None."""
	if os.geteuid() != 0:
		return "not root"
	for tool in ("ip", "nft", "nsenter"):
		if shutil.which(tool) is None:
			return f"no {tool}"
	return None


class Loopback:
	"""Addresses 127.0.0.1, ports of their own. Cuts are not possible."""
	can_cut = False

	def __init__(self, count, rnd, why):
		self.why, self.ports = why, {}
		for k in range(1, count + 1):
			self.ports[k] = (self.free_port(rnd), self.free_port(rnd))

	def free_port(self, rnd):
		import rig  # it imports the load, which knows nothing of networks
		while True:
			port = rig.free_port(rnd)
			if all(port not in pair for pair in self.ports.values()):
				return port

	def rpc(self, k):
		return "127.0.0.1", self.ports[k][0]

	def peer(self, k):
		return "127.0.0.1", self.ports[k][1]

	def inside(self, _):
		return []

	def heal(self):
		pass

	def close(self):
		pass


class Namespaces:
	"""Node k lives at 10.x.k.2 with the ports of a real installation; this process at 10.x.0.2."""
	can_cut = True
	why = ""

	def __init__(self, count):
		sweep()
		self.tag = f"{MARK}{os.getpid()}-"
		self.net = self.free_net()
		self.cuts = set()
		self.made, self.owner = [], os.getpid()
		atexit.register(self.close)
		self.switch = self.namespace("switch")
		self.switched("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
		self.nft(f"""table inet chaos {{
			set cut {{ type ipv4_addr . ipv4_addr; counter; }}
			chain forward {{ type filter hook forward priority 0; ip saddr . ip daddr @cut drop; }}
		}}""")
		for k in range(count + 1):
			self.wire(k)

	@staticmethod
	def free_net():
		routes = run("ip", "-4", "route") + run("ip", "-4", "addr")
		first = 100 + os.getpid() % 100
		return next(f"10.{n}" for n in range(first, 255) if f"10.{n}." not in routes)

	def path(self, name):
		return f"/run/netns/{self.tag}{name}"

	def namespace(self, name):
		run("ip", "netns", "add", self.tag + name)
		self.made.append(self.tag + name)
		run("ip", "-n", self.tag + name, "link", "set", "lo", "up")
		return self.tag + name

	def wire(self, k):
		"""One cable between the switch and a node, or this process."""
		name = self.namespace(f"n{k}") if k != HERE else None
		outer, inner = f"n{k}", f"tr{os.getpid() % 1000000}"
		into = ["netns", name, "name", "eth0"] if name else ["name", inner]
		run("ip", "link", "add", "netns", self.switch, "name", outer, "type", "veth", "peer",
		    *into)
		run("ip", "-n", self.switch, "addr", "add", f"{self.net}.{k}.1/24", "dev", outer)
		run("ip", "-n", self.switch, "link", "set", outer, "up")
		mine = ["-n", name] if name else []
		device = "eth0" if name else inner
		run("ip", *mine, "addr", "add", f"{self.net}.{k}.2/24", "dev", device)
		run("ip", *mine, "link", "set", device, "up")
		run("ip", *mine, "route", "add", f"{self.net}.0.0/16", "via", f"{self.net}.{k}.1")

	def address(self, k):
		return f"{self.net}.{k}.2"

	def rpc(self, k):
		return self.address(k), 7470

	def peer(self, k):
		return self.address(k), 7471

	def inside(self, k):
		"""Words before a command that is to run in the node's namespace; the process stays the same."""
		return ["nsenter", f"--net={self.path(f'n{k}')}"]

	def switched(self, *words, text=None):
		return run("nsenter", f"--net={self.path('switch')}", *words, text=text)

	def nft(self, text):
		return self.switched("nft", "-f", "-", text=text)

	def elements(self, pairs):
		return ", ".join(f"{self.address(a)} . {self.address(b)}" for a, b in pairs)

	def cut(self, pairs):
		"""Drops every packet from a to b for each (a, b)."""
		pairs = [p for p in pairs if p not in self.cuts]
		if pairs:
			self.nft(f"add element inet chaos cut {{ {self.elements(pairs)} }}")
			self.cuts |= set(pairs)

	def dropped(self, pairs=None):
		"""Packets dropped since the pairs were cut; by pair."""
		text = self.switched("nft", "-j", "list", "set", "inet", "chaos", "cut")
		found = {}
		for row in json.loads(text)["nftables"]:
			for element in row.get("set", {}).get("elem", []):
				ends = element["elem"]["val"]["concat"]
				a, b = (int(end.split(".")[2]) for end in ends)
				found[a, b] = element["elem"]["counter"]["packets"]
		return {pair: found.get(pair, 0) for pair in (self.cuts if pairs is None else pairs)}

	def heal(self, pairs=None):
		"""Lets packets through again; all when no pairs are named."""
		pairs = [p for p in (list(self.cuts) if pairs is None else pairs) if p in self.cuts]
		if pairs:
			self.nft(f"delete element inet chaos cut {{ {self.elements(pairs)} }}")
			self.cuts -= set(pairs)

	def close(self):
		if os.getpid() != self.owner:
			return  # a forked client ends
		for name in reversed(self.made):
			subprocess.run(["ip", "netns", "del", name], capture_output=True)
		self.made = []


def sweep():
	"""Removes what a killed run left behind."""
	for path in glob.glob(f"/run/netns/{MARK}*"):
		name = os.path.basename(path)
		owner = name[len(MARK):].split("-")[0]
		if owner.isdigit() and not os.path.exists(f"/proc/{owner}"):
			subprocess.run(["ip", "netns", "del", name], capture_output=True)


def make(count, rnd=random):
	"""The best network this machine has, for nodes 1..count."""
	why = missing()
	if why is None and os.environ.get("CHAOS_NET") != "loopback":
		try:
			return Namespaces(count)
		except OSError as error:
			why = str(error)
	return Loopback(count, rnd, why or "CHAOS_NET=loopback")


def both(a_side, b_side):
	"""The pairs of a cut between two sides, both ways."""
	return [p for a in a_side for b in b_side for p in ((a, b), (b, a))]
