// Node's own archives, and some distributions, bring its headers beside it: what builds addons then has nothing to download.
// By the environment, so that install scripts know it too.
//   node scripts/headers.mjs COMMAND ARGUMENTS…    runs a command so

import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

export function withHeaders(env = process.env) {
  const nodedir = dirname(dirname(process.execPath));
  if (env.npm_config_nodedir || !existsSync(join(nodedir, 'include/node/node_api.h'))) return env;
  return { ...env, npm_config_nodedir: nodedir };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [command, ...args] = process.argv.slice(2);
  const { status, error } = spawnSync(command, args, { stdio: 'inherit', env: withHeaders() });
  if (error) console.error(error.message);
  process.exit(status ?? 1);
}
