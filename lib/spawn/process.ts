import { EventEmitter } from 'node:events';
import { constants } from 'node:os';
import type { Duplex, Readable, Writable } from 'node:stream';
import type { Kept, NativeFailure, NativeProcess, NativeUsage } from '../../types/native.js';
import { Cgroup } from '../cgroup/cgroup.js';
import type { CgroupStats } from '../cgroup/types.js';
import { CgroupError, IsolationError } from '../errors.js';
import { execveAdvice } from '../host/exec-advice.js';
import type { NamespaceByType } from '../namespace/types.js';
import { checked, native } from '../native.js';
import { explainFailure } from '../plan/failure.js';
import type { OverlayRootfs } from '../rootfs/overlay-rootfs.js';
import { Supervisor } from '../security/seccomp/supervisor.js';
import { labelRefused } from '../security/selinux.js';
import { effectiveSignal } from './effective-signal.js';
import { whenStreamsEnd } from './end-of-streams.js';
import { InitChannel } from './init-channel.js';
import { type Prepared, prepare } from './prepare.js';
import type { GroupUsage } from './process-group.js';
import { ProcessLimits, type Reason } from './process-limits.js';
import { ProcessNamespaces } from './process-namespaces.js';
import { candidates } from './program.js';
import { readBack } from './read-back.js';
import { type Outcome, receiptOf, resultOf } from './result.js';
import type { Settings } from './settings.js';
import { Settled } from './settled.js';
import { signalName } from './signal-name.js';
import { openStreams, type Streams } from './streams.js';
import type { IsolatedProcess as IsolatedProcessShape, IsolatedResult, IsolationReceipt, ProcessEvents } from './types.js';
import { signalNumber } from './validate.js';

/** What is running in a sandbox: API and order of events are those of the contract, docs/process.md. */
export class IsolatedProcess extends EventEmitter<ProcessEvents> implements IsolatedProcessShape {
  readonly spawnfile: string;
  readonly spawnargs: readonly string[];
  readonly stdin: Writable | null = null;
  readonly stdout: Readable | null = null;
  readonly stderr: Readable | null = null;
  readonly stdio: readonly [Writable | null, Readable | null, Readable | null, ...(Duplex | null)[]] = [null, null, null];
  readonly rootfs?: OverlayRootfs;
  /** Its own, for as long as it lives, or the one that it was given. Of its own limits from `spawned` on. */
  cgroup?: Cgroup;
  pid: number | undefined;
  exitCode: number | null = null;
  signalCode: NodeJS.Signals | null = null;
  killed = false;

  #settings: Settings;
  readonly #began = performance.now();
  readonly #spawned = new Settled<void>();
  readonly #exited = new Settled<IsolatedResult>();
  #watched = false;
  #state: 'starting' | 'running' | 'ended' = 'starting';
  #reason: Reason | undefined;
  /** The signal that a PID 1 without a handler was ended for, by SIGKILL. */
  #meant: NodeJS.Signals | undefined;
  /** Killed before 'spawn'. */
  #cancelled = false;
  readonly #queued: number[] = [];
  #prepared: Prepared | undefined;
  #native: NativeProcess | undefined;
  #streams: Streams | undefined;
  #init: InitChannel | undefined;
  /** Of what was cloned: the program, or its init. */
  #root: number | undefined;
  #namespaces: ProcessNamespaces | undefined;
  #supervisor: Supervisor | undefined;
  #failure: IsolationError | undefined;
  readonly #limits: ProcessLimits;
  #seen: IsolationReceipt | undefined;
  #referenced = true;

  constructor(settings: Settings) {
    super();
    this.#settings = settings;
    this.#limits = new ProcessLimits(settings, (reason) => this.#end(reason));
    this.spawnfile = settings.command;
    this.spawnargs = [settings.command, ...settings.args];
    if (typeof settings.rootfs === 'object') this.rootfs = settings.rootfs;
    if (settings.cgroup instanceof Cgroup) this.cgroup = settings.cgroup;
    try {
      const streams = openStreams(settings, (index) => (chunk) => this.#limits.meter(index, chunk));
      this.#streams = streams;
      this.stdio = streams.parent as unknown as typeof this.stdio;
      [this.stdin, this.stdout, this.stderr] = this.stdio;
    } catch (error) {
      // As everything else that fails before the start, it is told later.
      queueMicrotask(() => this.#failed(error as IsolationError));
      return;
    }
    this.#limits.watch();
    void this.#start();
  }

  /** Resolves when execve has succeeded. Rejects with the `IsolationError` of a failed start, or ERR_CLOISTER_NOT_STARTED. */
  get spawned(): Promise<void> {
    this.#watched = true;
    return this.#spawned.promise;
  }

  /** Resolves with the result once nothing is left of it. Rejects with the `IsolationError` of a failed start. */
  get exited(): Promise<IsolatedResult> {
    this.#watched = true;
    return this.#exited.promise;
  }

  /**
   * The namespaces that it is in, opened when first read; closed at its end, unless pinned. `Namespace.of(process, type)` gives
   * one to keep. Throws ERR_CLOISTER_NOT_STARTED before 'spawn' and after the end.
   */
  get namespaces(): Readonly<NamespaceByType> {
    if (!this.#namespaces) throw notStarted('its namespaces exist from `spawned` on, to its end');
    return this.#namespaces.all;
  }

  /** What was published, from `spawned` on; with `host: 0`, the port that the kernel has chosen. */
  get ports(): readonly { host: number; guest: number }[] {
    return this.#prepared?.network?.ports ?? [];
  }

  /**
   * The receipt. From 'spawn' to its end each reading asks the kernel for what it shows (user and group maps, namespaces, capabilities,
   * no_new_privs, the mode of seccomp, AppArmor's profile, SELinux's context), and the result has the last one; without any, it has what was put in force. Undefined until
   * that is decided.
   */
  get isolation(): IsolationReceipt | undefined {
    if (!this.#prepared) return undefined;
    const planned = receiptOf(this.#settings, this.#prepared);
    if (this.#state === 'running') this.#seen = readBack(planned, this.pid as number);
    return this.#seen ?? planned;
  }

  /** Sends a signal, by pidfd: never to a stranger. False once it has ended. */
  kill(signal: NodeJS.Signals | number = 'SIGTERM'): boolean {
    const number = signalNumber(signal);
    if (this.#state === 'ended') return false;
    if (number === 0) return true;
    if (this.#state === 'starting') {
      if (number === constants.signals.SIGKILL) this.#cancel();
      else this.#queued.push(number);
      this.killed = true;
      return true;
    }
    const sent = this.#send(number);
    if (sent) this.killed = true;
    return sent;
  }

  /** The size of its terminal; the program gets SIGWINCH. Throws ERR_CLOISTER_NO_TTY without `tty`. */
  resize(columns: number, rows: number): void {
    const stream = this.#streams?.terminal?.stream;
    if (!stream) throw new IsolationError('ERR_CLOISTER_NO_TTY', 'only a process with `tty` can be resized');
    stream.resize(columns, rows);
  }

  /** Of its control group. Rejects with ERR_CLOISTER_NO_CGROUP without one, and before it is made. */
  stats(): Promise<CgroupStats> {
    if (this.cgroup) return this.cgroup.stats();
    return Promise.reject(new CgroupError('ERR_CLOISTER_NO_CGROUP', 'this process has no cgroup of its own, so there is nothing to count'));
  }

  ref(): void {
    this.#setRef(true);
  }

  unref(): void {
    this.#setRef(false);
  }

  /** Kills everything inside, waits, releases. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#watched = true;
    if (this.#state !== 'ended') this.#cancel();
    await this.#exited.promise.catch(() => {});
  }

  /** @internal Whether output of this descriptor was cut by outputLimit. */
  wasTruncated(index: number): boolean {
    return this.#limits.truncated[index] ?? false;
  }

  async #start(): Promise<void> {
    const streams = this.#streams as Streams;
    let prepared: Prepared;
    try {
      prepared = await prepare(this.#settings, streams, false, () => this.listenerCount('denied') > 0);
    } catch (error) {
      this.#discardTerminal();
      this.#failed(error as IsolationError);
      return;
    }
    this.#prepared = prepared;
    this.#settings = prepared.settings;
    if (this.#cancelled) {
      // Ended before there was anything to end.
      prepared.discard();
      await prepared.group?.discard();
      this.#endedUnstarted();
      return;
    }
    let encoded: Uint8Array;
    let pipe: [number, number];
    try {
      encoded = prepared.plan.encode();
      pipe = checked(native().pipe(), 'pipe2', 'make the report pipe') as [number, number];
    } catch (error) {
      prepared.discard();
      await prepared.group?.discard();
      this.#discardTerminal();
      this.#failed(error as IsolationError);
      return;
    }
    try {
      this.#init = prepared.init && new InitChannel(prepared.init);
      this.#supervise(prepared.callChannel);
      this.#native = new (native().Process)(
        encoded,
        prepared.plan.slots(),
        pipe,
        this.#settings.detached,
        (failure, executed, pid, kept) => this.#onStart(failure, executed, pid, kept),
        (code, signal, usage) => this.#onExit(code, signal, usage),
      );
      prepared.bridge?.start((error) => {
        this.#failure ??= error;
        this.#native?.cancel();
      });
      if (!this.#referenced) this.#setRef(false);
    } catch (error) {
      this.#init?.discard();
      this.#supervisor?.close();
      await prepared.group?.discard();
      this.#discardTerminal();
      this.#failed(error as IsolationError);
    }
  }

  #onStart(failure: NativeFailure | undefined, executed: boolean, pid: number, _kept: Kept): void {
    const alive = (this.#native as NativeProcess).pidfd() >= 0;
    this.#root = pid;
    if (failure && -failure.errno !== constants.errno.ECANCELED) {
      this.#failure = explainFailure((this.#prepared as Prepared).plan, failure);
    }
    this.#connectTerminal();
    if (this.#failure || !executed || this.#cancelled) {
      // A failed child is reaped before anybody hears of it. One that was killed on its way has not been started, even if the
      // signal came a moment after execve.
      if (alive) return;
      this.#init?.discard();
      this.#afterGroup(() => (this.#failure ? this.#failed(this.#failure) : this.#endedUnstarted()));
      return;
    }
    if (this.#init) {
      this.#init.start(
        // Killed meanwhile: then it has not been started, whatever init has to say by now.
        (programPid) => void (this.#cancelled || this.#running(programPid)),
        ({ candidate, errno, head }) => {
          const { execStep, landlock } = this.#prepared as Prepared;
          const label = this.#settings.selinux?.process;
          // Below 0: it did not come to a path.
          this.#failure =
            candidate < 0 && label !== undefined
              ? labelRefused(label, errno, execStep)
              : execveAdvice(candidates(this.#settings), candidate, errno, head, execStep, landlock !== undefined);
        },
      );
    } else this.#running(pid);
  }

  #running(pid: number): void {
    this.pid = pid;
    this.#state = 'running';
    this.#startReading();
    this.#namespaces = new ProcessNamespaces(pid);
    this.#prepared?.network?.begin(pid, this.#root ?? pid, (denial) => this.#tell('denied', denial));
    const group = this.#prepared?.group;
    if (group) this.cgroup = group.cgroup;
    const { cpuTimeLimit } = this.#settings;
    if (cpuTimeLimit !== undefined) group?.limitTime(cpuTimeLimit, () => this.#end('cpu-time'));
    for (const signal of this.#queued.splice(0)) this.#send(signal);
    this.#spawned.resolve();
    this.#tell('spawn');
  }

  #onExit(code: number | null, signal: number, usage: NativeUsage): void {
    const finish = (outcome: Outcome): void => {
      this.#afterGroup((usage) => {
        if (this.#failure) this.#failed(this.#failure);
        else this.#ended({ ...outcome, ...(usage ? { group: usage } : {}) }, this.#state === 'running');
      });
    };
    const own = { code, signal: signal === 0 ? null : signalName(signal), usage };
    if (!this.#init) {
      finish(own);
      return;
    }
    // What init wrote before it ended is in its pipe still.
    this.#init.end((report) =>
      finish(report ? { ...report, signal: report.signal === 0 ? null : signalName(report.signal) } : { ...own, code: null, signal: own.signal ?? 'SIGKILL' }),
    );
  }

  /** At once without a group and a bridge; else when what it says has been read, and it is gone if it was the spawn's own. */
  #afterGroup(then: (usage: GroupUsage | undefined) => void): void {
    const bridge = this.#prepared?.bridge;
    if (bridge) void bridge.release().then(() => this.#afterOwnGroup(then));
    else this.#afterOwnGroup(then);
  }

  #afterOwnGroup(then: (usage: GroupUsage | undefined) => void): void {
    const group = this.#prepared?.group;
    if (!group) then(undefined);
    else if (this.#failure || this.#state !== 'running') void group.discard().then(() => then(undefined));
    else void group.finish().then(then);
  }

  #endedUnstarted(): void {
    this.#discardTerminal();
    this.#ended({ code: null, signal: this.#meant ?? 'SIGKILL', usage: [0, 0, 0] }, false);
  }

  #ended(outcome: Outcome, started: boolean): void {
    if (this.#reason === undefined && this.#limits.isOutputOver(this.#streams?.outputs ?? [])) this.#reason = 'output-limit';
    this.#state = 'ended';
    this.#limits.stop();
    if (outcome.signal !== null && this.#meant !== undefined) outcome = { ...outcome, signal: this.#meant };
    this.exitCode = outcome.code;
    this.signalCode = outcome.signal;
    const reason = this.#reason ?? this.#limits.passed(outcome, this.#prepared?.group) ?? (outcome.signal === null ? 'exit' : 'signal');
    const result = resultOf(this.#settings, this.#prepared as Prepared, outcome, reason, performance.now() - this.#began, this.#seen);
    if (!started) this.#startReading();
    if (!started) this.#spawned.reject(notStarted(`it was ended before its program began (${reason})`));
    this.#release();
    // A terminal is one stream: what it has to say still has to be read.
    if (!this.#streams?.terminal) this.stdin?.destroy();
    // Whoever waits is told after all listeners, in a microtask.
    this.#exited.resolve(result);
    this.#tell('exit', this.exitCode, this.signalCode);
    whenStreamsEnd(this.stdio, () => this.#tellClose());
  }

  #failed(error: IsolationError): void {
    this.#state = 'ended';
    this.#limits.stop();
    this.#release();
    this.#discardStreams();
    this.#spawned.reject(error);
    this.#exited.reject(error);
    // Loud, unless somebody listens or waits: a failure that nobody looks at must not be silent.
    if (this.listenerCount('error') > 0 || !this.#watched) this.#tell('error', error);
    // After those who wait for `exited`.
    setImmediate(() => this.#tellClose());
  }

  /** What a listener throws is uncaught, as with any emitter of Node's; it does not keep the rest of the story from being told. */
  #tell<E extends keyof ProcessEvents>(event: E, ...args: ProcessEvents[E]): void {
    try {
      (this as EventEmitter).emit(event, ...args);
    } catch (thrown) {
      process.nextTick(() => {
        throw thrown;
      });
    }
  }

  #supervise(channel: number | undefined): void {
    const { seccomp } = this.#settings;
    if (channel === undefined || !seccomp) return;
    this.#supervisor = new Supervisor(channel, seccomp.profile.policy, seccomp.handlers, (denial) => this.#tell('denied', denial));
  }

  #release(): void {
    this.#supervisor?.close();
    this.#namespaces?.close();
    this.#namespaces = undefined;
    this.#prepared?.release();
  }

  #send(number: number): boolean {
    if (this.#init) return this.#init.signal(number) === 0;
    const { signal, meant } = effectiveSignal(number, this.pid as number, this.#settings.namespaces.pid === 'new');
    const sent = (this.#native as NativeProcess).signal(signal) === 0;
    if (sent && meant) this.#meant ??= signalName(number);
    return sent;
  }

  /** Everything inside, at once. */
  #cancel(): void {
    if (this.#state === 'running') this.#native?.signal(constants.signals.SIGKILL);
    else {
      this.#cancelled = true;
      this.#meant ??= 'SIGKILL';
      this.#native?.cancel();
      // With init, the start goes on after the launch.
      this.#native?.signal(constants.signals.SIGKILL);
    }
  }

  #end(reason: Reason): void {
    if (this.#state === 'ended' || this.#reason !== undefined) return;
    this.#reason = reason;
    const { killSignal, killGrace } = this.#settings;
    if (killSignal === 'SIGKILL' || this.#state === 'starting') {
      if (this.#state === 'starting') this.#meant = killSignal;
      this.#cancel();
      return;
    }
    this.#send(constants.signals[killSignal]);
    this.#limits.after(killGrace, () => this.#cancel());
  }

  #setRef(on: boolean): void {
    this.#referenced = on;
    this.#native?.setRef(on);
    this.#init?.setRef(on);
    this.#limits.setRef(on);
  }

  #connectTerminal(): void {
    this.#streams?.terminal?.connect();
  }

  #startReading(): void {
    for (const reader of this.#streams?.readers ?? []) reader.start();
  }

  #discardTerminal(): void {
    this.#streams?.terminal?.discard();
  }

  #discardStreams(): void {
    for (const stream of this.stdio) stream?.destroy();
  }

  #tellClose(): void {
    this.#tell('close', this.exitCode, this.signalCode);
  }
}

function notStarted(why: string): IsolationError {
  return new IsolationError('ERR_CLOISTER_NOT_STARTED', why);
}
