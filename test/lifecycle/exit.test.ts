/** Node ends, or a worker of it does, at each point of a spawn's life. */
import { describe, expect, test } from 'vitest';
import { settled } from '../helpers/census.js';
import { inChild } from '../helpers/harness.js';
import { fixturesDirectory } from '../helpers/probe.js';
import { Marker } from './story.js';

const points = ['created', 'microtask', 'immediate', 'spawn', 'running', 'exit', 'close', 'create of an OverlayRootfs', 'explain'] as const;
type Point = (typeof points)[number];

/** The body of an async function that calls `end(children)` when one of each kind of spawn has come to that point. */
const body = (point: Point): string => `
  const { spawnIsolated, explain, OverlayRootfs } = await import('cloister');
  const kinds = [{}, { init: true }, { tty: true }, { detached: false, stdio: ['ignore', 'pipe', 'ignore', 'pipe'] }];
  const ends = ${point === 'exit' || point === 'close'};
  const start = (kind) => {
    const child = spawnIsolated('/probe/probe', ends ? ['exit', '0'] : ['sleep'], {
      mounts: [{ type: 'bind', source: ${JSON.stringify(fixturesDirectory())}, target: '/probe', readonly: true }],
      env: { CLOISTER_MARKER: process.env.CLOISTER_MARKER },
      stdio: kind.tty ? undefined : ['ignore', 'pipe', 'ignore'],
      ...kind,
    });
    // What is sent to no one is no error.
    child.exited.catch((error) => { console.log(error.message); });
    return child;
  };
  const children = [];
  const each = (listen) => Promise.all(kinds.map((kind) => new Promise((resolve) => {
    const child = start(kind);
    children.push(child);
    listen(child, resolve);
  })));
  const event = (name) => each((child, resolve) => child.once(name, resolve));
  switch (${JSON.stringify(point)}) {
    case 'created': children.push(...kinds.map(start)); break;
    case 'microtask': children.push(...kinds.map(start)); await Promise.resolve(); break;
    case 'immediate': children.push(...kinds.map(start)); await new Promise((resolve) => setImmediate(resolve)); break;
    case 'running': await each((child, resolve) => child.stdout.once('data', resolve)); break;
    case 'create of an OverlayRootfs': OverlayRootfs.host().catch(console.log); OverlayRootfs.create({ layers: ['/etc'] }).catch(console.log); break;
    case 'explain': explain('/bin/true').catch(console.log); break;
    default: await event(${JSON.stringify(point)});
  }
  end(children);
`;

const natural = `for (const child of children) {
  child.unref();
  for (const stream of child.stdio) stream?.unref?.();
}`;

const zombiesAndChildren = `
  const childrenOf = (pid) => readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name)).flatMap((name) => {
    try {
      const [, comm, state, parent] = /^[0-9]+ \\((.*)\\) (.) ([0-9]+)/s.exec(readFileSync('/proc/' + name + '/stat', 'latin1'));
      return Number(parent) === pid ? [comm + ' ' + state] : [];
    } catch { return []; }
  });
`;

describe('the main thread', () => {
  const ways = {
    'process.exit()': { end: 'process.exit(0);', exitCode: 0 },
    'its natural end': { end: natural, exitCode: 0 },
    'an exception that nobody catches': { end: "process.nextTick(() => { throw new Error('on purpose'); });", exitCode: 1 },
    'process.abort() is no better': { end: 'process.abort();', exitCode: null },
  } as const;
  for (const [way, { end, exitCode }] of Object.entries(ways)) {
    test.concurrent.each(points)(`${way}, at: %s`, async (point) => {
      const marker = new Marker();
      const outcome = await inChild(`const end = (children) => { ${end} };\n${body(point)}`, { env: marker.env });
      expect(outcome.stdout).toBe('');
      expect(outcome.exitCode).toBe(exitCode);
      if (exitCode === 0) expect(outcome.stderr).toBe('');
      if (exitCode === 1) expect(outcome.stderr).toContain('on purpose');
      await settled(() => marker.processes(), { what: 'the sandbox of a host that has ended' });
    });
  }
});

describe('a worker, while the main thread lives on', () => {
  const ways = {
    'worker.terminate()': "parentPort.postMessage('now'); setInterval(() => {}, 1000);",
    'process.exit()': 'process.exit(0);',
    'its natural end': natural,
    'an exception that nobody catches': "process.nextTick(() => { throw new Error('on purpose'); });",
  };
  for (const [way, end] of Object.entries(ways)) {
    test.concurrent.each(points)(`${way}, at: %s`, async (point) => {
      const marker = new Marker();
      const worker = `(async () => {
        const { parentPort } = await import('node:worker_threads');
        const end = (children) => { ${end} };
        ${body(point)}
      })();`;
      const outcome = await inChild(
        `
        import { Worker } from 'node:worker_threads';
        import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
        ${zombiesAndChildren}
        const descriptors = () => readdirSync('/proc/self/fd').map((fd) => { try { return readlinkSync('/proc/self/fd/' + fd); } catch { return ''; } });
        // What the first worker leaves is Node's own.
        let before;
        for (let time = 0; time < 3; time++) {
          const worker = new Worker(${JSON.stringify(worker)}, { eval: true });
          worker.on('message', () => worker.terminate());
          worker.on('error', (error) => { if (error.message !== 'on purpose') console.log(error); });
          await new Promise((resolve) => worker.on('exit', resolve));
          const left = childrenOf(process.pid);
          if (left.length > 0) console.log('left by', time, left);
          before ??= descriptors();
        }
        const after = descriptors();
        if (after.length > before.length) console.log('descriptors', after.filter((target) => !before.includes(target)));
        console.log('the main thread lives on');
      `,
        { env: marker.env },
      );
      expect(outcome).toEqual({ exitCode: 0, signal: null, stdout: 'the main thread lives on\n', stderr: '' });
      expect(marker.processes()).toEqual([]);
    });
  }

  test('and can spawn as before', async () => {
    const outcome = await inChild(`
      import { Worker } from 'node:worker_threads';
      import { runIsolated, spawnIsolated } from 'cloister';
      const before = spawnIsolated('/bin/cat');
      await before.spawned;
      for (let time = 0; time < 5; time++) {
        const worker = new Worker("import('cloister').then(({ spawnIsolated }) => spawnIsolated('/bin/sleep', ['1000']).on('spawn', () => process.exit()))", { eval: true });
        await new Promise((resolve) => worker.on('exit', resolve));
      }
      before.stdin.end('before the workers');
      before.stdout.pipe(process.stdout);
      await before.exited;
      console.log((await runIsolated('/bin/echo', [', and after them'])).stdout);
    `);
    expect(outcome).toEqual({ exitCode: 0, signal: null, stdout: 'before the workers, and after them\n\n', stderr: '' });
  });
});

test('several workers spawn at the same time, fifty each', async () => {
  const worker = `(async () => {
    const { parentPort } = await import('node:worker_threads');
    const { runIsolated } = await import('cloister');
    let next = 0;
    const codes = [];
    await Promise.all(Array.from({ length: 5 }, async () => {
      while (next < 50) {
        const code = next++;
        codes[code] = (await runIsolated('/probe/probe', ['exit', String(code)], {
          mounts: [{ type: 'bind', source: ${JSON.stringify(fixturesDirectory())}, target: '/probe', readonly: true }],
        })).exitCode;
      }
    }));
    parentPort.postMessage(codes);
  })();`;
  const outcome = await inChild(
    `
    import { Worker } from 'node:worker_threads';
    import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
    ${zombiesAndChildren}
    const expected = JSON.stringify(Array.from({ length: 50 }, (_, code) => code));
    await Promise.all(Array.from({ length: 4 }, async () => {
      const worker = new Worker(${JSON.stringify(worker)}, { eval: true });
      worker.on('message', (codes) => console.log(JSON.stringify(codes) === expected ? 'right' : codes));
      await new Promise((resolve) => worker.on('exit', resolve));
    }));
    console.log(childrenOf(process.pid).length);
  `,
    { deadline: 60_000 },
  );
  expect(outcome).toEqual({ exitCode: 0, signal: null, stdout: 'right\nright\nright\nright\n0\n', stderr: '' });
});
