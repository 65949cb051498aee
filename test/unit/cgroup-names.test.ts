// What Cgroup's own functions refuse, by a promise.
import { Cgroup } from 'cloister';
import { expect, test } from 'vitest';

const rejected = (promise: Promise<unknown>): Promise<string> =>
  promise.then(
    () => 'accepted',
    (error: unknown) => (error instanceof TypeError ? error.message : `not a TypeError: ${error}`),
  );

test('Cgroup.create', async () => {
  expect([
    await rejected(Cgroup.create('x', { memory: -1 })),
    await rejected(Cgroup.create('x', null as never)),
    await rejected(Cgroup.create('x', {}, { parent: 1 as never })),
    await rejected(Cgroup.create('x', {}, { under: 'y' } as never)),
    await rejected(Cgroup.create('x', {}, null as never)),
    await rejected(Cgroup.create('x', {}, { parent: 'relative' })),
  ]).toMatchInlineSnapshot(`
      [
        "option 'limits.memory' takes bytes, such as '512M' or 536870912, or 'max'; got -1",
        "option 'limits' takes an object; got null",
        "option 'parent' takes a Cgroup or the path of one; got 1",
        "option 'under' takes nothing: there is no such option; got "y"",
        "option 'options' takes an object; got null",
        "option 'path' takes an absolute path, such as '/work'; got "relative"",
      ]
    `);
});

test('names', async () => {
  const names = [
    '',
    '.',
    '..',
    '/',
    '/a',
    'a/',
    'a//b',
    'a/../b',
    '../a',
    'a/..',
    'a\0b',
    'a\nb',
    'cgroup.procs',
    'a/cgroup.x',
    'x'.repeat(256),
    'é'.repeat(128),
    7,
    null,
  ];
  const accepted: unknown[] = [];
  for (const name of names) if ((await rejected(Cgroup.create(name as string))) === 'accepted') accepted.push(name);
  expect(accepted).toEqual([]);
  expect(await rejected(Cgroup.create('../a'))).toMatchInlineSnapshot(
    `"option 'name' takes one path component or several, such as 'judge/run-1', never '..'; got "../a""`,
  );
});

test('Cgroup.open', async () => {
  expect([
    await rejected(Cgroup.open('relative')),
    await rejected(Cgroup.open('')),
    await rejected(Cgroup.open(7 as never)),
    await rejected(Cgroup.open('/a\0b')),
  ]).toMatchInlineSnapshot(`
      [
        "option 'path' takes an absolute path, such as '/work'; got "relative"",
        "option 'path' takes an absolute path, such as '/work'; got """,
        "option 'path' takes an absolute path, such as '/work'; got 7",
        "option 'path' takes an absolute path, such as '/work'; got "/a\\u0000b"",
      ]
    `);
});
