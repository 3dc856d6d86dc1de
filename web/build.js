// Builds the page into the Python package. The same sources and the same lock file give the same bytes.
import { createHash } from "node:crypto";
import { copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const target = process.argv[2] ?? fileURLToPath(new URL("../src/safelight/web/static/", import.meta.url));

await rm(target, { recursive: true, force: true });
await mkdir(target, { recursive: true });
await build({
  absWorkingDir: here,
  entryPoints: { app: "src/main.tsx", style: "src/style/index.css" },
  outdir: target,
  bundle: true,
  minify: true,
  format: "esm",
  target: ["chrome123", "firefox120", "safari17.5"],
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "none",
  define: { "process.env.NODE_ENV": '"production"' },
});

const version = async (name) =>
  createHash("sha256").update(await readFile(`${target}/${name}`)).digest("hex").slice(0, 12);
let page = await readFile(`${here}/index.html`, "utf8");
const copied = ["icon.svg", "manifest.webmanifest", "icon-192.png", "icon-512.png", "icon-maskable-512.png"];
for (const name of copied) await copyFile(`${here}/${name.endsWith(".png") ? `icons/${name}` : name}`, `${target}/${name}`);
const shell = {};
for (const name of ["app.js", "style.css", "icon.svg"]) {
  const current = await version(name);
  const address = `web/${name}?v=${current}`;
  page = page.replaceAll(`web/${name}`, address);
  shell[address] = current;
}
await writeFile(`${target}/index.html`, page);
// The page without a connection: its service worker keeps exactly these files, and changes whenever one of them does.
await build({
  absWorkingDir: here,
  entryPoints: { "service-worker": "src/offline/worker.ts" },
  outdir: target,
  bundle: true,
  minify: true,
  format: "iife",
  target: ["chrome123", "firefox120", "safari17.5"],
  legalComments: "none",
  define: { SHELL: JSON.stringify({ "": await version("index.html"), ...shell }) },
});
