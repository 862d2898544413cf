#!/usr/bin/env python3
"""make install into a directory of its own: what is there, and that C programs build and run with it.

The installed trouped is started, and the program below talks to it through the shared and through the
static library. Standard library only.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from node import ROOT, Node  # noqa: E402

PREFIX = "/opt/troupe"
PROGRAM = r"""
#include <stdio.h>
#include <string.h>
#include <troupe/aggregate.h>
#include <troupe/client.h>
#include <troupe/troupe.pb-c.h>

static int command(struct troupe_client *client, const char *name, const char *json)
{
	struct troupe_call call = {.kind = TROUPE_COMMAND, .type = "account", .id = "installed",
		.name = name, .payload = json, .payload_size = strlen(json), .json = true,
		.expected = -1};
	struct troupe_answer answer;
	int code = troupe_client_call(client, &call, &answer);
	printf("%s %s seq=%llu %s\n", name, troupe_code_name(code), (unsigned long long)answer.seq,
		answer.error);
	troupe_answer_free(&answer);
	return code;
}

int main(int count, char **words)
{
	struct troupe_client_options options = {.url = count > 1 ? words[1] : ""};
	char error[100];
	struct troupe_client *client = troupe_client_open(&options, error, sizeof error);
	if (client == NULL) {
		puts(error);
		return 1;
	}
	command(client, "Open", "{}");
	command(client, "Nonsense", "{}");
	struct troupe_call types = {.kind = TROUPE_TYPES, .expected = -1};
	struct troupe_answer answer;
	if (troupe_client_call(client, &types, &answer) == TROUPE_OK) {
		Troupe__TypeList *list =
			troupe__type_list__unpack(NULL, answer.payload_size, answer.payload);
		for (size_t i = 0; list != NULL && i < list->n_types; i++) {
			printf("type %s\n", list->types[i]->name);
		}
		troupe__type_list__free_unpacked(list, NULL);
	}
	troupe_answer_free(&answer);
	troupe_client_close(client);
	printf("abi %u\n", TROUPE_ABI);
	return 0;
}
"""


def run(*words, env=None):
    done = subprocess.run(words, cwd=ROOT, env={**os.environ, **(env or {})}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900)
    if done.returncode != 0:
        raise AssertionError("%s: exit %d\n%s" % (" ".join(words), done.returncode, done.stdout))
    return done.stdout


def make(target, dest):
    # Not the jobs or the variant of a make that runs this test.
    clean = {"MAKEFLAGS": "", "MFLAGS": "", "MAKELEVEL": ""}
    return run("make", "--no-print-directory", target, "PREFIX=" + PREFIX, "DESTDIR=" + dest, env=clean)


def files_below(top):
    return sorted(os.path.relpath(os.path.join(where, name), top)
                  for where, _, names in os.walk(top) for name in names)


class Install(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dest = tempfile.mkdtemp(prefix="troupe-install-")
        cls.top = cls.dest + PREFIX
        make("install", cls.dest)
        cls.pkg = {"PKG_CONFIG_PATH": cls.top + "/lib/pkgconfig", "PKG_CONFIG_SYSROOT_DIR": cls.dest}
        cls.source = os.path.join(cls.dest, "program.c")
        with open(cls.source, "w") as out:
            out.write(PROGRAM)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dest)

    def path(self, name):
        return os.path.join(self.top, name)

    def flags(self, *words):
        # Headers of Debian's packages are not below the installed tree: without the sysroot again.
        text = run("pkg-config", *words, "troupe", env=self.pkg).split()
        return [word.replace(self.dest + "/usr/", "/usr/") for word in text]

    def talk(self, program, env=None):
        with unittest.mock.patch.dict(os.environ, TROUPED=self.path("bin/trouped")), Node() as node:
            self.assertEqual(os.readlink("/proc/%d/exe" % node.pid), self.path("bin/trouped"))
            out = run(program, "tcp://%s:%d" % (node.host, node.port), env=env)
        self.assertIn("Open ok seq=1", out)
        self.assertIn("Nonsense not_found", out)
        self.assertIn("type account\n", out)
        self.assertIn("abi 1\n", out)

    def test_everything_is_there(self):
        for name in ("bin/trouped", "bin/troupe", "lib/libtroupe.a", "lib/libtroupe.so",
                     "lib/libtroupe.so.0", "lib/pkgconfig/troupe.pc", "include/troupe/client.h",
                     "include/troupe/aggregate.h", "include/troupe/troupe.pb-c.h",
                     "share/troupe/troupe.proto", "share/man/man1/trouped.1",
                     "share/man/man1/troupe.1", "lib/systemd/system/trouped.service"):
            self.assertTrue(os.path.exists(self.path(name)), name)
        self.assertRegex(run(self.path("bin/troupe"), "--version"), r"\d+\.\d+\.\d+")

    def test_nothing_names_another_place(self):
        for name in ("lib/pkgconfig/troupe.pc", "lib/systemd/system/trouped.service"):
            with open(self.path(name)) as file:
                text = file.read()
            self.assertIn(PREFIX, text)
            self.assertNotIn("@PREFIX@", text)
            self.assertNotIn(self.dest, text)

    def test_a_program_runs_with_the_shared_library(self):
        program = os.path.join(self.dest, "shared")
        run("cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-o", program, self.source,
            *self.flags("--cflags", "--libs"))
        self.talk(program, {"LD_LIBRARY_PATH": self.path("lib")})

    def test_a_program_runs_with_the_static_library(self):
        program = os.path.join(self.dest, "static")
        libraries = [word for word in self.flags("--libs", "--static") if word != "-ltroupe"]
        run("cc", "-std=c11", "-o", program, self.source, *self.flags("--cflags"),
            self.path("lib/libtroupe.a"), *libraries)
        self.assertNotIn("libtroupe", run("ldd", program))
        self.talk(program)

    def test_the_headers_stand_alone(self):
        for header in ("client.h", "aggregate.h"):
            source = os.path.join(self.dest, "one.c")
            with open(source, "w") as out:
                out.write("#include <troupe/%s>\n" % header)
            for compiler in (["cc", "-std=c11", "-pedantic"], ["cc", "-x", "c++"]):
                if compiler[-1] == "c++" and shutil.which("c++") is None:
                    continue
                run(*compiler, "-Wall", "-Werror", "-fsyntax-only", source, *self.flags("--cflags"))

    def test_the_libraries_show_troupe_names_only(self):
        for words in (("nm", "-D", "--defined-only", self.path("lib/libtroupe.so.0")),
                      ("nm", "-g", "--defined-only", self.path("lib/libtroupe.a"))):
            names = [line.split()[-1] for line in run(*words).splitlines() if len(line.split()) == 3]
            self.assertIn("troupe_client_open", [name.split("@")[0] for name in names])
            others = [name for name in names if not name.lower().startswith("troupe_")]
            self.assertEqual(others, [])

    def test_uninstall_leaves_nothing(self):
        other = tempfile.mkdtemp(prefix="troupe-install-")
        try:
            make("install", other)
            self.assertGreater(len(files_below(other)), 10)
            make("uninstall", other)
            self.assertEqual(files_below(other), [])
        finally:
            shutil.rmtree(other)


if __name__ == "__main__":
    unittest.main()
