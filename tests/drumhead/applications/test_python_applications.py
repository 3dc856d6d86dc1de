"""Test web applications in Python with an ordinary requirements.txt: the first answer must be right."""

import json
import sqlite3

import pytest

from support.guests.applications import get
from support.guests.composing import write_wheel

pytestmark = pytest.mark.slow


async def test_flask_with_gunicorn(application):
    application.write(
        {
            "requirements.txt": "flask\ngunicorn\n",
            "pyproject.toml": '[project]\nname = "app"\nversion = "1"\n',
            "src/app.py": (
                "from flask import Flask, jsonify\napp = Flask(__name__)\n\n"
                "@app.get('/<int:number>')\ndef double(number):\n    return jsonify(doubled=2 * number)\n"
            ),
        },
        require="python",
        run=("runtime: native\nconfig_set:\n  web:\n    bootcmd: gunicorn --bind 0.0.0.0:8000 --workers 2 app:app\n"),
    )
    assert "requirements.txt was resolved into requirements.lock, with hashes" in application.compose()
    async with application.running(8000, "Booting worker") as port:
        assert json.loads(get(port, "/21")) == {"doubled": 42}


def test_a_dependency_that_reads_its_sources(application, tmp_path):
    modules = {
        "inhouse/__init__.py": "import inspect, os\nfrom inhouse import other\n\ndef source():\n"
        "    return inspect.getsource(other)\n\n"
        "def names():\n    return sorted(os.listdir(os.path.dirname(__file__)))\n",
        "inhouse/other.py": "print('imported')\n",
        "loader/__init__.py": "import os\nexec(open(os.path.join(os.path.dirname(__file__), 'config.py')).read())\n",
        "loader/config.py": "value = 42\n",
        "inhouse-1.0.data/scripts/inhouse": "#!python\nimport loader\nprint(loader.value)\n",
        "quiet.py": "import os\n\ndef names():\n    return __file__\n",
    }
    wheel, digest = write_wheel(tmp_path, modules)
    application.write(
        {
            "requirements.txt": f"inhouse @ {wheel.as_uri()} --hash=sha256:{digest}\n",
            "main.py": "import inhouse, quiet, subprocess\n"
            "print([inhouse.source(), inhouse.names(), quiet.names(), subprocess.getoutput('inhouse')])\n",
        },
        require="cli",
        run="runtime: python\nconfig_set:\n  web: {main: /main.py}\n",
    )
    site = "/usr/local/lib/python3.11/dist-packages"
    application.compose()
    names = ["__init__.py", "__pycache__", "other.py"]
    said = application.run("web").splitlines()
    assert said[-2:] == ["imported", str([modules["inhouse/other.py"], names, f"{site}/quiet.pyc", "42"])]
    manifest = application.root / "meta/package.yaml"
    manifest.write_text(manifest.read_text() + "python: {sources: true}\n")
    application.compose()
    assert f"{site}/quiet.py', '42'" in application.run("web").splitlines()[-1]


@pytest.mark.heavy
async def test_fastapi_with_fifteen_packages(application):
    packages = ["fastapi", "uvicorn[standard]", "sqlalchemy", "jinja2", "python-multipart", "httpx", "orjson", "pyyaml"]
    packages += ["itsdangerous", "cryptography", "pyjwt", "aiosqlite", "redis", "pillow", "numpy"]
    assert len(packages) == 15
    application.write(
        {
            "requirements.txt": "\n".join(packages),
            "main.py": (
                "import io\nimport numpy, jwt, orjson, redis, yaml, httpx, aiosqlite, itsdangerous\n"
                "from cryptography.fernet import Fernet\nfrom fastapi import FastAPI, UploadFile\n"
                "from jinja2 import Template\nfrom PIL import Image\n"
                "from sqlalchemy import create_engine, text\n\n"
                "app = FastAPI()\nengine = create_engine('sqlite:////tmp/app.db')\n\n"
                "@app.get('/{number}')\ndef look(number: int) -> dict[str, object]:\n"
                "    with engine.connect() as connection:\n"
                "        doubled = connection.execute(text('select 2 * :n'), {'n': number}).scalar_one()\n"
                "    token = jwt.encode({'n': number}, 'k' * 32)\n"
                "    box = Fernet(Fernet.generate_key())\n"
                "    picture = io.BytesIO()\n    Image.new('RGB', (number, 2)).save(picture, 'PNG')\n"
                "    return {\n        'doubled': doubled, 'token': jwt.decode(token, 'k' * 32, ['HS256'])['n'],\n"
                "        'secret': box.decrypt(box.encrypt(b'yes')).decode(),\n"
                "        'picture': Image.open(picture).size, 'sum': int(numpy.arange(number).sum()),\n"
                "        'text': Template('{{ n }}!').render(n=number), 'yaml': yaml.safe_load('[1]'),\n    }\n"
            ),
        },
        run=(
            "runtime: python\nconfig_set:\n  web:\n    module: uvicorn\n"
            "    args: ['main:app', --host, 0.0.0.0, --port, '8000']\n"
        ),
    )
    application.compose()
    async with application.running(8000, "Uvicorn running on", memory="384M") as port:
        assert json.loads(get(port, "/21")) == {
            "doubled": 42, "token": 21, "secret": "yes", "picture": [21, 2], "sum": 210, "text": "21!", "yaml": [1],
        }  # fmt: skip


DJANGO = {
    "requirements.txt": "django>=5,<6\n",
    "manage.py": (
        "import os, sys\nos.environ.setdefault('DJANGO_SETTINGS_MODULE', 'site_settings')\n"
        "from django.core.management import execute_from_command_line\nexecute_from_command_line(sys.argv)\n"
    ),
    "site_settings.py": (
        "SECRET_KEY = 'a test'\nALLOWED_HOSTS = ['*']\nROOT_URLCONF = 'notes.urls'\nINSTALLED_APPS = ['notes']\n"
        "DATABASES = {'default': {'ENGINE': 'django.db.backends.sqlite3', 'NAME': '/data/site.db'}}\n"
        "DEFAULT_AUTO_FIELD = 'django.db.models.BigAutoField'\nUSE_TZ = True\n"
    ),
    "notes/__init__.py": "",
    "notes/models.py": "from django.db import models\n\nclass Note(models.Model):\n    text = models.TextField()\n",
    "notes/migrations/__init__.py": "",
    "notes/migrations/0001_initial.py": (
        "from django.db import migrations, models\n\nclass Migration(migrations.Migration):\n    initial = True\n"
        "    operations = [migrations.CreateModel('Note', [\n"
        "        ('id', models.BigAutoField(primary_key=True, serialize=False)), ('text', models.TextField())])]\n"
    ),
    "notes/urls.py": (
        "from django.http import JsonResponse\nfrom django.urls import path\nfrom notes.models import Note\n\n"
        "def notes(request):\n    Note.objects.create(text=request.GET['add'])\n"
        "    return JsonResponse([note.text for note in Note.objects.order_by('id')], safe=False)\n\n"
        "urlpatterns = [path('notes', notes)]\n"
    ),
}


async def test_django_with_a_volume_and_migrations(application):
    application.write(
        DJANGO,
        run=(
            "runtime: python\nconfig_set:\n  migrate:\n    main: /manage.py\n    args: [migrate, --verbosity, '2']\n"
            "  web:\n    main: /manage.py\n    args: [runserver, --noreload, '0.0.0.0:8000']\n"
            "    env: {PYTHONUNBUFFERED: 1}\nconfig_set_default: web\n"
        ),
    )
    application.compose()
    volume = ("--volume", f"{application.name}:/data:64M")
    assert "Applying notes.0001_initial... OK" in application.run("migrate", *volume)
    for expected in (["one"], ["one", "two"]):
        async with application.running(8000, "Quit the server", *volume) as port:
            assert json.loads(get(port, f"/notes?add={expected[-1]}")) == expected


async def test_datasette(application):
    application.write({"requirements.txt": "datasette\n"}, run=(
        "runtime: python\nconfig_set:\n  web:\n    module: datasette\n"
        "    args: [serve, /rivers.db, --host, 0.0.0.0, --port, '8001']\n"
    ))  # fmt: skip
    with sqlite3.connect(application.root / "rivers.db") as database:
        database.execute("create table rivers (name text, kilometres int)")
        database.execute("insert into rivers values ('Sava', 990), ('Soča', 138)")
    database.close()
    application.compose()
    async with application.running(8001, "Uvicorn running on") as port:
        assert json.loads(get(port, "/rivers/rivers.json?_shape=objects&_sort=kilometres"))["rows"] == [
            {"rowid": 2, "name": "Soča", "kilometres": 138},
            {"rowid": 1, "name": "Sava", "kilometres": 990},
        ]
