/** Programs of this machine that tests run inside, where they are not simply in the PATH. */
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Mount } from 'cloister';

/** The directory of initdb, pg_ctl and postgres: the newest, where there are several versions. */
export function postgresqlDirectory(): string | undefined {
  const versions = '/usr/lib/postgresql';
  if (!existsSync(versions)) return undefined;
  return readdirSync(versions)
    .sort((a, b) => Number(b) - Number(a))
    .map((version) => join(versions, version, 'bin'))
    .find((directory) => existsSync(join(directory, 'initdb')));
}

/** A directory whose node_modules has packages with their tests, and what runs these. */
export function packageSuite(): string | undefined {
  const directory = process.env['CLOISTER_PACKAGE_SUITE'];
  return directory !== undefined && existsSync(directory) ? directory : undefined;
}

/** Node may live in a home directory, which is not to be seen inside: then it is brought in. */
const isHidden = /^\/(root|home|tmp|run)\//.test(process.execPath);
export const nodeInside = isHidden ? '/opt/node/bin/node' : process.execPath;
export const nodeMounts: readonly Mount[] = isHidden ? [{ type: 'bind', source: dirname(dirname(process.execPath)), target: '/opt/node', readonly: true }] : [];
