import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
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
  try {
    if (isTaken(signal, pid)) return { signal, meant: false };
  } catch {
    return { signal, meant: false };
  }
  return { signal: SIGKILL, meant: true };
}

function isTaken(signal: number, pid: number): boolean {
  const bit = 1n << BigInt(signal - 1);
  const isHandled = (): boolean => {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    const set = (name: string): bigint => BigInt(`0x${new RegExp(`^${name}:\\s*([0-9a-f]+)`, 'm').exec(status)?.[1] ?? '0'}`);
    // A blocked signal is kept for the program to take: sigwaitinfo(2), signalfd(2).
    return ((set('SigCgt') | set('SigIgn') | set('SigBlk')) & bit) !== 0n;
  };
  // While it waits in sigwaitinfo(2), SigBlk does not have what it waits for (do_sigtimedwait, real_blocked in kernel/signal.c).
  // Looked at again, in case that it has stopped waiting between the two looks.
  return isHandled() || (awaited(pid) & bit) !== 0n || isHandled();
}

const rtSigtimedwait = process.arch === 'arm64' ? '137' : '128';

/** The set of signals that its main thread waits for in sigwaitinfo(2). */
function awaited(pid: number): bigint {
  let memory: number | undefined;
  try {
    const [call, set] = readFileSync(`/proc/${pid}/syscall`, 'latin1').split(' ');
    if (call !== rtSigtimedwait || set === undefined) return 0n;
    memory = openSync(`/proc/${pid}/mem`, 'r');
    const words = new BigUint64Array(1);
    return readSync(memory, words, 0, 8, BigInt(set)) === 8 ? (words[0] as bigint) : 0n;
  } catch {
    // proc_pid_syscall(5): only for those who may trace it.
    return 0n;
  } finally {
    if (memory !== undefined) closeSync(memory);
  }
}
