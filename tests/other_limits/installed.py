"""Programs that people run, with work that has an end."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from applications.rerun import drop_from_cache
from workloads import pgbench, web_server

from other_limits.work import program, random_file, shell, tool, with_content, with_folder


def _lines(number: int) -> Callable[[], bytes]:
    def content() -> bytes:
        return b"".join(b"%016x %08d\n" % (n * 0x9E3779B97F4A7C15 % (1 << 64), n) for n in range(number))

    return content


def _source() -> bytes:
    functions = (
        f"static int f{n}(int a, int b) {{ int s = {n}; for (int i = 0; i < a; i++) "
        f"{{ s += (i * b) ^ (s >> {n % 7}); if (s % {n + 3} == 1) s -= b * i; }} return s; }}\n"
        for n in range(400)
    )
    calls = "".join(f"  total += f{n}(argc + {n}, argc);\n" for n in range(400))
    return (
        "".join(functions) + f"int main(int argc, char **argv) {{ int total = 0;\n{calls}  return total; }}\n"
    ).encode()


def _rust_source() -> bytes:
    functions = "".join(
        f"fn f{n}(m: &mut HashMap<String, Vec<u64>>, x: u64) -> u64 {{ "
        f'let v = m.entry(format!("{{}}-{n}", x)).or_default(); v.push(x * {n}); '
        f"v.iter().map(|y| y ^ {n}).sum() }}\n"
        for n in range(40)
    )
    calls = "".join(f"s += f{n}(&mut m, {n});\n" for n in range(40))
    return (
        f"use std::collections::HashMap;\n{functions}"
        f'fn main() {{ let mut m = HashMap::new(); let mut s = 0u64;\n{calls}println!("{{}}", s); }}\n'
    ).encode()


def _texts(folder: Path) -> None:
    """Make 61 files of text, 7 MiB together, in `texts`."""
    chosen = random.Random(1)
    words = [f"{chosen.getrandbits(40):x}" for _ in range(5000)]
    (folder / "texts").mkdir()
    for number in range(61):
        lines = (" ".join(chosen.choices(words, k=9)) for _ in range(1300))
        (folder / "texts" / str(number)).write_text("\n".join(lines), encoding="ascii")


def _java_class(folder: Path) -> None:
    (folder / "Churn.java").write_text(_CHURN, encoding="ascii")
    subprocess.run(["javac", "Churn.java"], cwd=folder, check=True)


@contextmanager
def _uncached_database(_: Path) -> Iterator[Path]:
    with pgbench.database() as folder:
        drop_from_cache(folder / "data")
        yield folder


_REDIS: Final = """
redis-server --port 0 --unixsocket "$0.sock" --save "" --appendonly no &
server=$!
until redis-cli -s "$0.sock" ping; do kill -0 $server || exit 1; sleep 0.05; done
{
    redis-benchmark -s "$0.sock" -q -t set -n 60000 -r 60000 -d 700 -c 4
    redis-cli -s "$0.sock" shutdown nosave
} &
wait $server
"""
_LMDB: Final = """
set -e
awk 'BEGIN { print "VERSION=3\\nformat=print\\ntype=btree\\nmapsize=268435456\\nHEADER=END" }
    { print " " $1; print " " $1 $2 $1 $2 $1 $2 } END { print "DATA=END" }' "$0" > "$0.pairs"
mkdir "$0.db"
mdb_load -f "$0.pairs" "$0.db"
for round in 1 2 3; do mdb_dump "$0.db" > /dev/null; done
"""
_GIT: Final = """
cd "${0%/*}/texts" && git init -q . && git add -A &&
git -c user.name=a -c user.email=a@localhost commit -qm texts &&
git -c pack.threads=1 -c core.compression=1 repack -adfq --window=5
"""
_TAR: Final = """
cd "${0%/*}" && mkdir again && tar -cf texts.tar texts && tar -xf texts.tar -C again
"""
_NODE: Final = """
const kept = new Map();
for (let number = 0; number < 300000; number++) kept.set(number, ['value ' + number]);
console.log(kept.size);
"""
_CHURN: Final = """
import java.util.ArrayDeque;
import java.util.Arrays;

public class Churn {
    public static void main(String[] arguments) throws InterruptedException {
        ArrayDeque<byte[]> held = new ArrayDeque<>();
        for (int count = 0; count < 200; count++) {
            byte[] piece = new byte[1 << 19];
            Arrays.fill(piece, (byte) 1);
            held.add(piece);
            if (held.size() > 40) held.remove();
            Thread.sleep(5);
        }
        System.out.println("held " + held.size());
    }
}
"""
_VIDEO: Final = "testsrc=duration=1:size=1280x720:rate=25"

INSTALLED: Final = (
    program(
        "sort",
        tool("sort", "-S", "40M", "--parallel=1", "-o", "/dev/null", "FILE"),
        60,
        with_content(_lines(1_000_000)),
    ),
    program("xz", tool("xz", "-3", "-T1", "-k", "-c", "FILE"), 60, random_file(13)),
    program("zstd", tool("zstd", "-q", "-9", "-T1", "-c", "FILE"), 60, random_file(23)),
    program("redis", shell(_REDIS), 90),
    program("gzip", tool("gzip", "-c", "FILE"), 20, with_content(_lines(1_000_000))),
    program(
        "awk",
        tool("awk", "{ seen[$1] = $2 } END { print length(seen) }", "FILE"),
        160,
        with_content(_lines(1_000_000)),
    ),
    program(
        "perl",
        tool("perl", "-ne", "($k, $v) = split; $seen{$k} = $v; END { print scalar keys %seen }", "FILE"),
        100,
        with_content(_lines(300_000)),
    ),
    program("gcc", tool("gcc", "-x", "c", "-O1", "-S", "-o", "/dev/null", "FILE"), 60, with_content(_source)),
    program(
        "rustc", tool("rustc", "-O", "--emit=obj", "-o", "FILE.o", "FILE"), 300, with_content(_rust_source)
    ),
    program("postgresql", pgbench.reading, 48, _uncached_database),
    program("nginx", web_server.serving, 52, with_folder(web_server.make_site)),
    program("lmdb", shell(_LMDB), 40, with_content(_lines(250_000))),
    program("git", shell(_GIT), 40, with_folder(_texts)),
    program("tar", shell(_TAR), 10, with_folder(_texts)),
    program(
        "ffmpeg",
        tool(
            "ffmpeg",
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            _VIDEO,
            "-threads",
            "2",
            "-c:v",
            "mpeg4",
            "-f",
            "null",
            "-",
        ),
        200,
    ),
    program("node", tool("node", "--max-old-space-size=300", "-e", _NODE), 200),
    program(
        "java",
        tool(
            "java",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xms60m",
            "-Xmx60m",
            "-cp",
            "FOLDER",
            "Churn",
        ),
        200,
        with_folder(_java_class),
    ),
)
