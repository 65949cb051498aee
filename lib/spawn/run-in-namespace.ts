import { optionError } from '../errors.js';
import { caller } from '../host/caller.js';
import type { Namespace } from '../namespace/namespace.js';
import { argumentsOf, checkRun, collect } from './run.js';
import { type Settings, settingsOf } from './settings.js';
import type { RunOptions, RunResult, SpawnOptions } from './types.js';
import { onlyKeys } from './validate.js';

const optionNames = ['cwd', 'env', 'input', 'encoding', 'timeout', 'outputLimit', 'signal', 'killSignal', 'killGrace'];

/** Namespace.run: one command in one namespace, all else the caller's. */
export async function runInNamespace(namespace: Namespace, command: string, rest: readonly unknown[]): Promise<RunResult<string | Buffer>> {
  const { args, options } = argumentsOf<RunOptions>(rest);
  if (options === null || typeof options !== 'object') throw optionError('options', 'an object', options);
  onlyKeys(options, '', optionNames);
  const { input, encoding, env, cwd, ...others } = options;
  checkRun(input, encoding);
  // An ordinary user may enter it only as root of the user namespace that owns it.
  const owner = caller().privileged || namespace.type === 'user' ? undefined : await namespace.owner();
  const spawn: SpawnOptions = {
    ...others,
    outputLimit: others.outputLimit ?? '64M',
    cwd: cwd ?? (namespace.type === 'mount' ? '/' : process.cwd()),
    noNewPrivileges: false,
    seccomp: 'unconfined',
    apparmor: false,
    namespaces: {
      cgroup: 'host',
      ipc: 'host',
      mount: 'host',
      net: 'host',
      pid: 'host',
      time: 'host',
      user: owner ?? 'host',
      uts: 'host',
      [namespace.type]: namespace,
    },
  };
  const settings: Settings = {
    ...settingsOf(command, args, spawn),
    env: { ...(env ?? process.env) } as Record<string, string>,
    umask: process.umask(),
    capabilities: 'caller',
  };
  try {
    return await collect(settings, input, encoding ?? 'utf8');
  } finally {
    owner?.close();
  }
}
