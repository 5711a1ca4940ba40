"""Coverage-guided fuzzing of the native walk over DICOM headers, for `make fuzz`.

libFuzzer starts from tests/fuzz/corpus.zip and looks for inputs that reach new code, under
AddressSanitizer and UndefinedBehaviorSanitizer. Then every input that it kept goes through pydicom:
what the walk finds, pydicom finds too. What reaches code that the corpus did not reach is left as
build/fuzz/corpus.zip, to take the corpus' place.
"""

import argparse
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "data"))

from against_pydicom import START, compare  # type: ignore[import-not-found]

from ichfast.data.headers import TAGS

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "tests" / "fuzz"
BUILD = ROOT / "build" / "fuzz"
SANITIZERS = "-fsanitize=fuzzer,address,undefined"
FLAGS = ("-std=c++20", "-O1", "-g", SANITIZERS, "-fno-sanitize-recover=all")
LIMITS = ("-max_len=1024", "-timeout=10", "-rss_limit_mb=1024")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=120)
    seconds = parser.parse_args().seconds
    compiler = os.environ.get("CLANGXX", "clang++")
    if shutil.which(compiler) is None:
        sys.exit(f"fuzz: no {compiler}; install clang with its libFuzzer, or name it in CLANGXX")
    fuzzer = build(compiler)
    corpus, smallest = BUILD / "corpus", BUILD / "smallest"
    unpack(SOURCE / "corpus.zip", corpus)
    run(fuzzer, f"-max_total_time={seconds}", f"-dict={SOURCE / 'dicom.dict'}", corpus)
    failures = [path for path in sorted(corpus.iterdir()) if report(path)]
    shutil.rmtree(smallest, ignore_errors=True)
    smallest.mkdir()
    run(fuzzer, "-merge=1", smallest, corpus)
    pack(smallest, BUILD / "corpus.zip")
    count = len(list(corpus.iterdir()))
    print(f"fuzz: {count} inputs, of which pydicom reads {len(failures)} otherwise")
    if failures:
        sys.exit(1)


def build(compiler: str) -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    tags = ", ".join(f"{tag:#010x}" for tag in TAGS)
    (BUILD / "tags.h").write_text(
        f"#pragma once\n#include <cstdint>\nconstexpr uint32_t kTags[] = {{{tags}}};\n"
    )
    fuzzer = BUILD / "fuzz_dicom"
    folders = (f"-I{ROOT / 'csrc'}", f"-I{BUILD}")
    subprocess.run(
        [compiler, *FLAGS, *folders, ROOT / "tests" / "cpp" / "fuzz_dicom.cpp", "-o", fuzzer],
        check=True,
    )
    return fuzzer


def run(fuzzer: Path, *arguments: object) -> None:
    """An input that fails is left beside the fuzzer, and named."""
    log = BUILD / "log"
    with log.open("w") as file:
        command = [str(fuzzer), *LIMITS, f"-artifact_prefix={BUILD}/", *map(str, arguments)]
        ended = subprocess.run(command, stderr=file, stdout=file, check=False)
    if ended.returncode:
        sys.exit("".join(log.open(errors="replace").readlines()[-60:]))
    print("fuzz:", log.read_text(errors="replace").rstrip().rpartition("\n")[2])


def report(path: Path) -> bool:
    """Whether walk and pydicom differ, which is said."""
    difference = compare(START + path.read_bytes())
    if difference:
        print(f"fuzz: {path}: {difference}")
    return bool(difference)


def unpack(archive: Path, folder: Path) -> None:
    folder.mkdir(exist_ok=True)  # what earlier runs found there is gone on with
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)


def pack(folder: Path, archive: Path) -> None:
    """The same bytes from the same inputs."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.iterdir()):
            file.writestr(zipfile.ZipInfo(path.name), path.read_bytes(), zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()
