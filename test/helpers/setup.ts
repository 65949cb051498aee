import { accessSync, chmodSync, constants, existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { buildFixtures, staleFixtures } from './build-fixtures.js';
import { directoryVariable, fixturesDirectory } from './fixtures.js';

function isWritable(directory: string): boolean {
  try {
    accessSync(existsSync(directory) ? directory : dirname(directory), constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/**
 * vitest's globalSetup: the fixtures are there when the first test file starts.
 * A user who may not write beside the sources, and finds no current fixtures there, gets a directory of their own.
 */
export default function setup(): (() => void) | undefined {
  const directory = fixturesDirectory();
  if (staleFixtures(directory).length === 0) return undefined;
  if (isWritable(directory)) {
    buildFixtures(directory);
    return undefined;
  }
  const own = mkdtempSync(join(tmpdir(), 'cloister-fixtures-'));
  chmodSync(own, 0o755);
  process.env[directoryVariable] = own;
  buildFixtures(own);
  return () => {
    delete process.env[directoryVariable];
    rmSync(own, { recursive: true, force: true });
  };
}
