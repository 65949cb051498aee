import { describe, expect, test } from 'vitest';
import { settled } from '../helpers/census.js';
import { inChild } from '../helpers/harness.js';
import { fixturesDirectory } from '../helpers/probe.js';
import { Marker } from './story.js';

const script = (options: string, then: string): string => `
  import { spawnIsolated } from 'cloister';
  const child = spawnIsolated('/probe/probe', ['sleep'], {
    mounts: [{ type: 'bind', source: ${JSON.stringify(fixturesDirectory())}, target: '/probe', readonly: true }],
    env: { CLOISTER_MARKER: process.env.CLOISTER_MARKER },
    stdio: 'ignore',
    ${options}
  });
  await child.spawned;
  console.log(child.pid);
  ${then}
`;

describe.each([
  ['ends', 'child.unref();'],
  ['exits', 'process.exit();'],
  ['is killed', "process.kill(process.pid, 'SIGKILL');"],
])('a host that %s', (_name, then) => {
  test.each(['', 'init: true,'])('is outlived by a detached one (%s)', async (init) => {
    const marker = new Marker();
    const { stdout, stderr } = await inChild(script(`detached: true, ${init}`, then), { env: marker.env });
    expect(stderr).toBe('');
    const pid = Number(stdout);
    try {
      // Dying with the host would have been sent before that one was gone.
      expect(marker.pids()).toContain(pid);
    } finally {
      for (const left of marker.pids()) {
        try {
          process.kill(left, 'SIGKILL');
        } catch {
          // With its init, the program has gone already.
        }
      }
    }
    await settled(() => marker.processes());
  });

  test('takes all others along', async () => {
    const marker = new Marker();
    await inChild(script('', then), { env: marker.env });
    await settled(() => marker.processes());
  });
});

test('a worker that ends does not take it along', async () => {
  const marker = new Marker();
  const { stdout, stderr } = await inChild(
    `
    import { Worker } from 'node:worker_threads';
    const worker = new Worker("import('cloister').then(async ({ spawnIsolated }) => { const child = spawnIsolated('/bin/sleep', ['1000'], { detached: true, stdio: 'ignore', env: { CLOISTER_MARKER: process.env.CLOISTER_MARKER } }); await child.spawned; console.log(child.pid); child.unref(); })", { eval: true });
    await new Promise((resolve) => worker.on('exit', resolve));
  `,
    { env: marker.env },
  );
  expect(stderr).toBe('');
  const pid = Number(stdout);
  try {
    expect(marker.pids()).toContain(pid);
  } finally {
    for (const left of marker.pids()) process.kill(left, 'SIGKILL');
  }
  await settled(() => marker.processes());
});
