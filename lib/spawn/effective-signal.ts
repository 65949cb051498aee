import { readFileSync } from 'node:fs';
import { constants } from 'node:os';

const { SIGCHLD, SIGCONT, SIGKILL, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH } = constants.signals;
/** Whose default action is not to end the process: signal(7). */
const harmless: ReadonlySet<number> = new Set([SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH]);

/**
 * What to send so that a PID 1 ends as any other process would. The kernel drops a signal for which an init has no handler
 * (sig_task_ignored in kernel/signal.c, SIGNAL_UNKILLABLE), so where the default action would end it, SIGKILL does, and the
 * result names the signal that was meant. The pid cannot be a stranger's: we have not reaped it.
 */
export function effectiveSignal(signal: number, pid: number, isInit: boolean): { signal: number; meant: boolean } {
  if (!isInit || signal === SIGKILL || harmless.has(signal)) return { signal, meant: false };
  let status: string;
  try {
    status = readFileSync(`/proc/${pid}/status`, 'latin1');
  } catch {
    return { signal, meant: false };
  }
  const set = (name: string): bigint => BigInt(`0x${new RegExp(`^${name}:\\s*([0-9a-f]+)`, 'm').exec(status)?.[1] ?? '0'}`);
  const bit = 1n << BigInt(signal - 1);
  // A blocked signal is kept for the program to take: sigwaitinfo(2), signalfd(2).
  const taken = (set('SigCgt') | set('SigIgn') | set('SigBlk')) & bit;
  return taken ? { signal, meant: false } : { signal: SIGKILL, meant: true };
}
