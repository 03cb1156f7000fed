import test from 'node:test'
import assert from 'node:assert/strict'
import { slug } from './slug.js'

test('words are joined', () => assert.equal(slug('Hello, World!'), 'hello-world'))
test('accents go', () => assert.equal(slug('Señal Única'), 'senal-unica'))
test('nothing stays nothing', () => assert.equal(slug('!!!'), ''))
