// Format and rules of everything: biome, clang-format, the compiler's types. --fix writes what can be written.

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const fix = process.argv.includes('--fix');
const bin = (name) => join(root, 'node_modules/.bin', name);

function filesIn(folder, endings) {
  if (!existsSync(join(root, folder))) return [];
  return readdirSync(join(root, folder), { recursive: true })
    .map((name) => join(folder, name))
    .filter((name) => endings.test(name) && !/\/(build|node_modules)\//.test(name));
}

let failed = 0;
function check(what, command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (status === 0) return;
  failed++;
  console.error(`lint: ${what} failed${error ? `: ${error.message}` : ''}`);
}

const scripts = ['lib', 'types', 'test', 'bench', 'examples', 'scripts', 'vitest.config.ts'].filter((name) => existsSync(join(root, name)));
check('biome', bin('biome'), ['check', '--error-on-warnings', '--max-diagnostics=200', ...(fix ? ['--write'] : []), ...scripts]);

const sources = [...filesIn('csrc', /\.(cc|h|c)$/), ...filesIn('test', /\.(cc|h|c)$/), ...filesIn('bench', /\.c$/)];
check('clang-format', bin('clang-format'), [...(fix ? ['-i'] : ['--dry-run', '--Werror']), ...sources]);

check('types', bin('tsc'), ['--noEmit', '-p', 'tsconfig.test.json']);

process.exit(failed === 0 ? 0 : 1);
