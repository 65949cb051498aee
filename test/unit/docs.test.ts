// Runs what the documents show: every block that is marked ```js run, with `needs ability` where not every machine can.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { repository } from '../helpers/fixtures.js';
import { inChild } from '../helpers/harness.js';
import { type Ability, testNeeding } from '../helpers/lane.js';

const documents = [
  'README.md',
  ...readdirSync(join(repository, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];
const blocks = documents.flatMap((document) => {
  const text = readFileSync(join(repository, document), 'utf8');
  return [...text.matchAll(/^```js run(?: needs (\S+))?\n(.*?)^```$/gms)].map((match) => ({
    needs: match[1] === undefined ? [] : [match[1] as Ability],
    code: match[2] as string,
    where: `${document}:${text.slice(0, match.index).split('\n').length}`,
  }));
});

describe('what the documents show', () => {
  test.runIf(blocks.length === 0)('is nothing that could be run: no block is marked ```js run', () => {});

  for (const { code, needs, where } of blocks) {
    testNeeding(needs)(where, async () => {
      const { exitCode, signal, stderr } = await inChild(code);
      expect({ exitCode, signal, stderr }).toEqual({ exitCode: 0, signal: null, stderr: '' });
    });
  }
});

test('every error code of the source is in docs/errors.md, and no other', () => {
  const sources = readdirSync(join(repository, 'lib'), { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  const codes = (text: string): string[] => [...text.matchAll(/ERR_CLOISTER_[A-Z_]+[A-Z]/g)].map(([code]) => code);
  const used = new Set(sources.flatMap((name) => codes(readFileSync(join(repository, 'lib', name), 'utf8'))));
  const told = new Set(codes(readFileSync(join(repository, 'docs/errors.md'), 'utf8')));
  expect([...told].sort()).toEqual([...used].sort());
});

test('links between the documents lead somewhere', () => {
  const broken = documents.flatMap((document) => {
    const folder = join(repository, document, '..');
    const text = readFileSync(join(repository, document), 'utf8').replace(/```.*?```/gs, '');
    return [...text.matchAll(/\]\((?!https?:|#)([^)#\s]+)/g)]
      .map(([, target]) => target as string)
      .filter((target) => {
        try {
          readFileSync(join(folder, target));
          return false;
        } catch (error) {
          return (error as NodeJS.ErrnoException).code !== 'EISDIR';
        }
      })
      .map((target) => `${document} → ${target}`);
  });
  expect(broken).toEqual([]);
});
