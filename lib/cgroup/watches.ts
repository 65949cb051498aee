import type { EventEmitter } from 'node:events';
import { watchEvent } from './events.js';
import type { Place } from './places.js';
import { type PressureTrigger, watchPressure } from './pressure.js';

const events = ['oom', 'memory-high', 'pids-max', 'empty'] as const;
type Watched = (typeof events)[number];

/** What is watched for in a group: events for as long as somebody listens to them, and pressure. */
export class Watches {
  readonly #emitter: EventEmitter;
  readonly #places: readonly Place[];
  /** Each with what ends it. */
  readonly #open = new Map<string | PressureTrigger, () => void>();
  #closed = false;

  /** `emitter`: the types of the group's leave Node's own events out. */
  constructor(emitter: EventEmitter, places: readonly Place[]) {
    this.#emitter = emitter;
    this.#places = places;
    emitter.on('newListener', (event: string) => this.#watch(event));
    emitter.on('removeListener', (event: string) => emitter.listenerCount(event) === 0 && this.#end(event));
  }

  #watch(event: string): void {
    if (this.#closed || this.#open.has(event) || !(events as readonly string[]).includes(event)) return;
    const end = watchEvent(event as Watched, this.#places, (name, ...args) => this.#emitter.emit(name, ...args));
    if (end) this.#open.set(event, end);
  }

  /** Until the result is disposed of. */
  pressure(trigger: PressureTrigger): Disposable {
    this.#open.set(
      trigger,
      watchPressure(this.#places, trigger, () => this.#emitter.emit('pressure', { resource: trigger.resource })),
    );
    return { [Symbol.dispose]: () => this.#end(trigger) };
  }

  #end(which: string | PressureTrigger): void {
    this.#open.get(which)?.();
    this.#open.delete(which);
  }

  close(): void {
    this.#closed = true;
    for (const which of this.#open.keys()) this.#end(which);
  }
}
