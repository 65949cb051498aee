/** Threads that work on trees are used again; whoever is done with one has no more to say to it. */
import { Readable } from 'node:stream';
import { expect } from 'vitest';
import { native } from '../../dist/native.js';
import { startTask } from '../../dist/tree/task.js';
import { extract } from '../../dist/tree/tree.js';
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
