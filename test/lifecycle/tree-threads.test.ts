/** Threads that work on trees are used again; whoever is done with one has no more to say to it. */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { gzipSync } from 'node:zlib';
import { expect } from 'vitest';
import { native } from '../../dist/native.js';
import { startTask } from '../../dist/tree/task.js';
import { extract } from '../../dist/tree/tree.js';
import { census, leaks, settled } from '../helpers/census.js';
import { testNeeding } from '../helpers/lane.js';
import { archive, file } from '../helpers/raw-tar.js';
import { temporary } from '../integration/trees.js';

testNeeding(['root'])('a task that is ended after its end does not end the next one of its thread', async () => {
  const module = new URL('../../dist/tree/tree-tasks.js', import.meta.url);
  const directory = temporary();
  const root = native().openFile(directory);
  const first = startTask<void>({ module, request: { kind: 'empty' }, lent: [root], owner: undefined });
  await first.done;
  native().close(root);
  const target = temporary();
  // It waits for the rest of its tar, in the thread of the first.
  let go = (): void => undefined;
  let tell = (): void => undefined;
  const waiting = new Promise<void>((resolve) => {
    tell = resolve;
  });
  const whole = archive(file('a', 'x'.repeat(100_000)));
  const source = Readable.from(
    (async function* () {
      yield whole.subarray(0, 5000);
      await new Promise<void>((resolve) => {
        go = resolve;
        tell();
      });
      yield whole.subarray(5000);
    })(),
  );
  const next = extract(source, target);
  await waiting;
  first.end(new Error('nobody needs it any more'));
  go();
  expect(await next).toMatchObject({ entries: 1 });
});

/** Longer than all that the threads have between them. */
const large = archive(...Array.from({ length: 40 }, (_, n) => file(`f${n}`, Buffer.alloc(150_000, `${n} `))));

const outcomeOf = async (tar: Readable, compression: 'none' | 'gzip', signal?: AbortSignal): Promise<string> =>
  await extract(tar, temporary(), { digest: { compression }, signal }).then(
    ({ entries, tar: { digest } }) => `${entries} entries of ${digest}`,
    (error) => String(error),
  );

testNeeding([])('a layer is hashed as it is extracted, whatever surrounds it', async () => {
  const digest = createHash('sha256').update(large).digest('hex');
  const members = Buffer.concat([gzipSync(large.subarray(0, 1_000_000)), gzipSync(large.subarray(1_000_000)), Buffer.alloc(3000)]);
  const pieces = function* (bytes: Buffer): Generator<Buffer> {
    for (let at = 0; at < bytes.length; at += 7777) yield bytes.subarray(at, at + 7777);
  };
  expect(await outcomeOf(Readable.from(pieces(large)), 'none')).toBe(`40 entries of ${digest}`);
  expect(await outcomeOf(Readable.from(pieces(members)), 'gzip')).toBe(`40 entries of ${digest}`);
});

testNeeding([])('neither of its two threads waits for the other in vain', async () => {
  const before = census(['descriptors', 'threads']);
  const zipped = gzipSync(large, { level: 0 });
  const damaged = Buffer.from(zipped);
  damaged.fill(0xff, 3_000_000, 3_000_100);
  const hostile = Buffer.concat([archive(file('/absolute', '')), large, large]);
  const told: Record<string, string> = {
    'not gzip any more': await outcomeOf(Readable.from([damaged]), 'gzip'),
    'cut short': await outcomeOf(Readable.from([zipped.subarray(0, 2_000_000)]), 'gzip'),
    'refused in its middle': await outcomeOf(Readable.from([large.subarray(0, -1024), hostile]), 'none'),
  };
  for (const after of [1, 8, 20]) {
    const ender = new AbortController();
    const endless = async function* (): AsyncGenerator<Buffer> {
      yield large.subarray(0, -1024);
      for (let n = 1; ; n++) {
        if (n === after) ender.abort(new Error('that is enough'));
        yield archive(file(`more${n}`, Buffer.alloc(400_000, 'x'))).subarray(0, -1024);
      }
    };
    told[`ended at piece ${after}`] = await outcomeOf(Readable.from(endless()), 'none', ender.signal);
  }
  expect(told).toMatchInlineSnapshot(`
    {
      "cut short": "ImageError: a layer's gzip stream is broken: unexpected end of file",
      "ended at piece 1": "Error: that is enough",
      "ended at piece 20": "Error: that is enough",
      "ended at piece 8": "Error: that is enough",
      "not gzip any more": "ImageError: a layer's gzip stream is broken: incorrect data check",
      "refused in its middle": "ImageError: not taken as a layer: //absolute: its name is absolute",
    }
  `);
  await settled(() => leaks(before, census(['descriptors', 'threads'])), { what: 'what is left' });
});
