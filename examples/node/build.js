// build writes one file that a page can load.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'

mkdirSync('dist', { recursive: true })
writeFileSync('dist/slug.js', readFileSync('slug.js', 'utf8').replace(/^\/\/.*\n/gm, ''))
