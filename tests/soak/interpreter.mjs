// Runs the signature matrix on a Python that is WebAssembly: node interpreter.mjs <pyodide> <wheels> <repository>
//
// There are no threads, no sockets and no build of orjson there. A sync tool runs in the place of its thread, an event loop sleeps
// instead of waiting for files, and the standard library writes the JSON. Everything else is the real thing, pydantic too.
import { pathToFileURL } from "node:url";

const [pyodide, wheels, repository] = process.argv.slice(2);
const { loadPyodide } = await import(pathToFileURL(`${pyodide}/pyodide.mjs`));
const python = await loadPyodide();
for (const [place, root] of [["/wheels", wheels], ["/repository", repository]]) {
  python.FS.mkdirTree(place);
  python.FS.mount(python.FS.filesystems.NODEFS, { root }, place);
}
process.exitCode = python.runPython(`
import asyncio, glob, importlib, json, os, sys, time, types, zipfile

for wheel in glob.glob("/wheels/*.whl"):
    zipfile.ZipFile(wheel).extractall("/site")
sys.path[:0] = ["/repository", "/site"]
sys.dont_write_bytecode = True
importlib.invalidate_caches()

orjson = types.ModuleType("orjson")
orjson.JSONDecodeError = json.JSONDecodeError
orjson.OPT_PASSTHROUGH_DATACLASS = orjson.OPT_PASSTHROUGH_DATETIME = orjson.OPT_PASSTHROUGH_SUBCLASS = 0
orjson.Fragment = object
orjson.loads = json.loads
orjson.dumps = lambda value, option=0, default=None: json.dumps(
    value, separators=(",", ":"), ensure_ascii=False, allow_nan=False
).encode()
sys.modules["orjson"] = orjson


class Loop(asyncio.BaseEventLoop):
    def __init__(self):
        super().__init__()
        self._selector = self

    def select(self, timeout):
        time.sleep(timeout or 0)
        return []

    def _process_events(self, events): ...
    def _write_to_self(self): ...


def run(coroutine):
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    loop = Loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()
        asyncio._set_running_loop(before)


async def here(function, *args, **options):
    return function(*args)

import anyio.to_thread

anyio.to_thread.run_sync = here
anyio.run = lambda function, *args, **options: run(function(*args))
asyncio.run = run

os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
os.chdir("/repository")
import pytest

print("Python", sys.version.split()[0], "on", sys.platform)
int(pytest.main(["--noconftest", "-p", "no:cacheprovider", "-p", "no:faulthandler", *${JSON.stringify(process.argv.slice(5))}]))
`);
