import { constants } from 'node:os';
import type { NativeFailure, NativeProcess } from '../../types/native.js';
import { IsolationError } from '../errors.js';
import { checked, native } from '../native.js';
import { explainFailure } from '../plan/failure.js';
import type { Prepared } from './prepare.js';
import { type Settings, settingsOf } from './settings.js';

const { EPERM, EACCES, ENOSPC, EUSERS = 87, EINVAL, ENOSYS, EOPNOTSUPP, ENODEV, ENOENT } = constants.errno as typeof constants.errno & { EUSERS?: number };
/** By which a host refuses for good; want of memory or descriptors is not one of them. */
const refusals: ReadonlySet<number> = new Set([EPERM, EACCES, ENOSPC, EUSERS, EINVAL, ENOSYS, EOPNOTSUPP, ENODEV, ENOENT]);

/** Kinds of namespaces that this process is known to get. Refusals are not remembered: somebody may mend the host. */
const granted = new Set<string>();

/**
 * Why this host does not give these namespaces with a default root in them, or undefined: a process that goes all the way to its
 * program and ends there tries it, as every refusal has a cause of its own that no file tells.
 */
export async function namespaceRefusal(
  { namespaces, idMap }: Settings,
  prepare: (settings: Settings, child: readonly number[]) => Promise<Prepared>,
): Promise<IsolationError | undefined> {
  const asked = Object.fromEntries(Object.entries(namespaces).filter(([, choice]) => choice === 'new' || choice === 'host')) as Settings['namespaces'];
  if (!Object.values(asked).includes('new')) return undefined;
  const key = JSON.stringify([asked, idMap]);
  if (granted.has(key)) return undefined;
  const settings = settingsOf('trial', [], { namespaces: asked as object, ...(asked.user === 'new' ? { idMap } : {}) });
  const nothing = (): number => checked(native().openFile('/dev/null'), 'open', 'make the streams');
  try {
    const prepared = await prepare(settings, settings.stdio.map(nothing));
    const failure = await runWithoutProgram(prepared);
    if (failure) throw explainFailure(prepared.plan, failure);
    granted.add(key);
    return undefined;
  } catch (error) {
    if (error instanceof IsolationError && (error.errno === undefined || refusals.has(-error.errno))) return error;
    throw error;
  }
}

function runWithoutProgram(prepared: Prepared): Promise<NativeFailure | undefined> {
  const { plan, init } = prepared;
  plan.steps.child.pop();
  return new Promise((resolve, reject) => {
    const end = (failure: NativeFailure | undefined): void => {
      for (const fd of init ? [init.status, init.pidfdSocket] : []) native().close(fd);
      prepared.release();
      resolve(failure);
    };
    let failed: NativeFailure | undefined;
    let child: NativeProcess | undefined;
    try {
      const pipe = checked(native().pipe(), 'pipe2', 'make the report pipe') as [number, number];
      child = new (native().Process)(
        plan.encode(),
        plan.slots(),
        pipe,
        false,
        (failure) => {
          failed = failure;
          // Where there was no process, none will end.
          if ((child as NativeProcess).pidfd() < 0) end(failed);
        },
        () => end(failed),
      );
    } catch (error) {
      prepared.discard();
      reject(error as Error);
    }
  });
}
