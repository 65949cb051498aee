import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { isAbsolute, join } from 'node:path';

// What is not there inside is often there on the host, and meant: in a home directory, most of all, which the default root does not
// show. Asked after the failure only.

/** How to bring in a path that this host has; undefined if it has not. */
export function bringIn(path: string): string | undefined {
  if (!isAbsolute(path) || !existsSync(path)) return undefined;
  return `It is there on this host, but not in the root. To bring it in: mounts: [{ type: 'bind', source: '${path}', target: '${path}', readonly: true }].`;
}

/** Where this process would find a program of that name. */
export function whereOnHost(name: string, path = process.env['PATH'] ?? ''): string | undefined {
  return path
    .split(':')
    .filter(isAbsolute)
    .map((directory) => join(directory, name))
    .find(isProgram);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
