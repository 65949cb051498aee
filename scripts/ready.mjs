// Makes a clone ready to run: packages, addon, dist/. What is current is left alone, so that it can run before everything.
// --always builds all of it again.

import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { withHeaders } from './headers.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const always = process.argv.includes('--always');
const at = (...path) => join(root, ...path);

function filesIn(...names) {
  return names.flatMap((name) => {
    if (!statSync(at(name)).isDirectory()) return [name];
    const entries = readdirSync(at(name), { recursive: true, withFileTypes: true });
    return entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath ?? entry.path, entry.name).slice(root.length));
  });
}

function hashOf(files, ...facts) {
  const hash = createHash('sha256').update(facts.join('\0'));
  for (const file of files.sort()) hash.update(`\0${file}\0`).update(readFileSync(at(file)));
  return hash.digest('hex');
}

const readOr = (file, otherwise) => (existsSync(file) ? readFileSync(file, 'utf8') : otherwise);

function run(what, command, args) {
  console.error(`cloister: ${what}`);
  const { status, error, stdout, stderr } = spawnSync(command, args, { cwd: root, encoding: 'utf8', maxBuffer: 2 ** 28, env: withHeaders() });
  if (status === 0) return;
  throw new Error(`${what} failed (${error?.message ?? `${command} ${args.join(' ')}`})\n${stdout ?? ''}${stderr ?? ''}`);
}

function inPath(name) {
  const candidates = name.includes('/') ? [name] : (process.env.PATH ?? '').split(delimiter).map((folder) => join(folder, name));
  return candidates.some((path) => {
    try {
      accessSync(path, constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}

function needBuildTools() {
  const needed = [
    ['a C++20 compiler', [process.env.CXX?.split(' ')[0], 'c++', 'g++']],
    ['a C compiler', [process.env.CC?.split(' ')[0], 'cc', 'gcc']],
    ['make', [process.env.MAKE, 'make']],
    ['python3', [process.env.PYTHON, process.env.npm_config_python, 'python3', 'python']],
  ];
  const missing = needed.filter(([, names]) => !names.some((name) => name && inPath(name))).map(([what]) => what);
  if (missing.length === 0) return;
  throw new Error(
    `building the addon needs ${missing.join(', ')}, not found in PATH.\n` +
      'Debian, Ubuntu: apt-get install build-essential python3. Fedora: dnf install gcc-c++ make python3. Alpine: apk add build-base linux-headers python3.',
  );
}

// npm's own record of what it has installed is complete only after `npm ci` has ended.
function packagesAreCurrent() {
  const record = at('node_modules/.package-lock.json');
  if (!existsSync(record)) return false;
  const installed = JSON.parse(readFileSync(record, 'utf8')).packages;
  const wanted = JSON.parse(readFileSync(at('package-lock.json'), 'utf8')).packages;
  return Object.entries(wanted).every(([name, { version, optional, devOptional, peer }]) => {
    if (name === '') return true;
    return installed[name] ? installed[name].version === version : (optional ?? devOptional ?? peer ?? false);
  });
}

function readyPackages() {
  if (packagesAreCurrent()) return;
  if (process.platform === 'linux') needBuildTools();
  run('installing packages', 'npm', ['ci', '--no-audit', '--no-fund']);
}

const addon = 'build/Release/cloister.node';

// What `npm ci` has just built through our install script is as good as what we would build.
function isNewer(file, sources) {
  if (!existsSync(at(file))) return false;
  const built = statSync(at(file)).mtimeMs;
  return sources.every((source) => statSync(at(source)).mtimeMs < built);
}

function readyAddon() {
  if (process.platform !== 'linux') return;
  const sources = filesIn('csrc', 'binding.gyp').filter((file) => !file.endsWith('CMakeLists.txt'));
  const hash = hashOf(sources, process.versions.modules, process.arch);
  const stamp = at('build/.stamp');
  const before = readOr(stamp, undefined);
  if (!always && before === hash && existsSync(at(addon))) return;
  if (always || before !== undefined || !isNewer(addon, sources)) {
    needBuildTools();
    const gyp = at('node_modules/node-gyp/bin/node-gyp.js');
    run('building the addon', process.execPath, [gyp, ...(always ? ['rebuild'] : ['configure', 'build'])]);
  }
  writeFileSync(stamp, hash);
}

function readyScript() {
  const sources = filesIn('lib', 'types', 'tsconfig.json', 'tsconfig.build.json');
  const { version } = JSON.parse(readFileSync(at('node_modules/typescript/package.json'), 'utf8'));
  const hash = hashOf(sources, version);
  const stamp = at('dist/.stamp');
  if (!always && readOr(stamp, '') === hash) return;
  if (always) rmSync(at('dist'), { recursive: true, force: true });
  mkdirSync(at('dist'), { recursive: true });
  // Not to be taken for current if this is interrupted.
  rmSync(stamp, { force: true });
  run('compiling lib/', process.execPath, [at('node_modules/typescript/bin/tsc'), '-p', 'tsconfig.build.json']);
  writeFileSync(stamp, hash);
}

try {
  readyPackages();
  readyAddon();
  readyScript();
} catch (error) {
  console.error(`cloister: ${error.message}`);
  process.exit(1);
}
