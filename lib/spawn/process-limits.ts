import type { ProcessGroup } from './process-group.js';
import type { Outcome } from './result.js';
import type { Settings } from './settings.js';
import type { IsolatedResult } from './types.js';

export type Reason = IsolatedResult['reason'];

/** Timeout, abort and output of one process: what ends it, if nothing else does before. */
export class ProcessLimits {
  /** By descriptor, whether its output was cut. */
  readonly truncated: boolean[] = [];
  readonly #settings: Settings;
  readonly #end: (reason: Reason) => void;
  readonly #timers: NodeJS.Timeout[] = [];
  #onAbort: (() => void) | undefined;
  #counted = 0;
  #referenced = true;

  constructor(settings: Settings, end: (reason: Reason) => void) {
    this.#settings = settings;
    this.#end = end;
  }

  watch(): void {
    const { timeout, signal } = this.#settings;
    if (timeout !== undefined) this.after(timeout, () => this.#end('timeout'));
    if (!signal) return;
    this.#onAbort = () => this.#end('aborted');
    if (signal.aborted) this.#onAbort();
    else signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  after(milliseconds: number, act: () => void): void {
    const timer = setTimeout(act, milliseconds);
    if (!this.#referenced) timer.unref();
    this.#timers.push(timer);
  }

  stop(): void {
    for (const timer of this.#timers.splice(0)) clearTimeout(timer);
    if (this.#onAbort) this.#settings.signal?.removeEventListener('abort', this.#onAbort);
  }

  setRef(on: boolean): void {
    this.#referenced = on;
    for (const timer of this.#timers) on ? timer.ref() : timer.unref();
  }

  /** What of this output may be handed on. */
  meter(index: number, chunk: Buffer): Buffer | undefined {
    const { outputLimit } = this.#settings;
    if (outputLimit === undefined) return chunk;
    const left = outputLimit - this.#counted;
    this.#counted += chunk.length;
    if (chunk.length < left) return chunk;
    if (chunk.length > left) this.truncated[index] = true;
    this.#end('output-limit');
    return left > 0 ? chunk.subarray(0, left) : undefined;
  }

  /** What it wrote before its end counts, read by now or not: else the reason would be a matter of luck. */
  isOutputOver(outputs: readonly { waiting(): number }[]): boolean {
    const { outputLimit } = this.#settings;
    return outputLimit !== undefined && outputs.reduce((sum, output) => sum + output.waiting(), this.#counted) >= outputLimit;
  }

  /** Limits that the kernel acted on, or that were passed between two looks. */
  passed({ group: usage, code, signal }: Outcome, group: ProcessGroup | undefined): Reason | undefined {
    const { cpuTimeLimit } = this.#settings;
    if (usage?.oomKills && (signal !== null || code !== 0)) return 'oom';
    return cpuTimeLimit !== undefined && (group?.usedMs ?? 0) >= cpuTimeLimit ? 'cpu-time' : undefined;
  }
}
