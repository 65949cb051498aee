// The built types, as a user's compiler sees them: dist/ must be current.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { repository } from '../helpers/fixtures.js';

function compile(project: string): string {
  try {
    execFileSync(process.execPath, [join(repository, 'node_modules/typescript/bin/tsc'), '--noEmit', '-p', project], {
      cwd: repository,
      encoding: 'utf8',
      stdio: 'pipe',
    });
    return '';
  } catch (error) {
    return String((error as { stdout?: string }).stdout);
  }
}

test('the programs of the contract compile against the built types, under the strictest settings', () => {
  expect(compile('test/types/programs')).toBe('');
});

test('the built types have the shapes of the contract', () => {
  expect(compile('test/types')).toBe('');
});

test('and a program that is wrong does not compile', () => {
  const directory = mkdtempSync(join(tmpdir(), 'cloister-types-'));
  try {
    mkdirSync(join(directory, 'node_modules'));
    symlinkSync(repository, join(directory, 'node_modules/cloister'));
    symlinkSync(join(repository, 'node_modules/@types'), join(directory, 'node_modules/@types'));
    writeFileSync(join(directory, 'package.json'), '{"type":"module"}');
    writeFileSync(join(directory, 'tsconfig.json'), JSON.stringify({ extends: join(repository, 'test/types/programs/tsconfig.json'), include: ['*.ts'] }));
    writeFileSync(
      join(directory, 'wrong.ts'),
      `import { spawnIsolated, runIsolated } from 'cloister';
spawnIsolated('x', [], { umask: '022' });
spawnIsolated('x', [], { shell: true });
spawnIsolated('x', [], { capabilities: ['NET_ADMIN'] });
spawnIsolated('x', [], { stdio: 'ignore' }).stdin.write('');
spawnIsolated('x', [], { tty: true }).stderr.on('data', () => {});
runIsolated('x', [], { outputLimit: '5MB' });
`,
    );
    const lines = [...compile(directory).matchAll(/wrong\.ts[(:](\d+)/g)].map(([, line]) => Number(line));
    expect([...new Set(lines)].sort()).toEqual([2, 3, 4, 5, 6, 7]);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});
