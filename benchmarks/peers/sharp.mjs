// The recipes `web` and `thumbnail` by sharp, in one process that works on as many photos at once as there are cores.
//   node sharp.mjs MODULES RECIPE DIRECTORY OUTPUT CORES     names of files on standard input; prints seconds
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'

const [modules, recipe, directory, output, cores] = process.argv.slice(2)
const sharp = createRequire(join(modules, 'package.json'))('sharp')
sharp.cache(false)
sharp.concurrency(1)

const sizes = recipe === 'web' ? [['small', 480], ['medium', 1024], ['large', 2048]] : [['image', 320]]
const formats = recipe === 'web' ? ['webp', 'jpeg'] : ['webp']
const options = { webp: { quality: 80, effort: 2 }, jpeg: { quality: 80, progressive: true } }

async function photo (name) {
  const data = readFileSync(join(directory, name))
  await Promise.all(sizes.flatMap(([label, side]) => formats.map(async format => {
    const scaled = sharp(data).autoOrient().resize(side, side, { fit: 'inside', withoutEnlargement: true })
    const made = await scaled.toFormat(format, options[format]).toBuffer()
    writeFileSync(join(output, `${name}-${label}.${format}`), made)
  })))
}

const names = readFileSync(0, 'utf8').split('\n').filter(Boolean)
const start = performance.now()
await Promise.all(Array.from({ length: Number(cores) }, async () => {
  for (let name; (name = names.shift());) await photo(name)
}))
console.log((performance.now() - start) / 1000)
