/** Flows that are remembered; the one that has been silent longest makes room. */
const most = 1024;
/** As conntrack has it for a stream of datagrams: nf_conntrack_udp_timeout_stream. */
const silence = 120_000;

/** Who sends datagrams has not said that it begins, and will not say that it ends: what is known of each is kept while it is heard. */
export class Flows<Flow> {
  /** By both ends; the one that was heard last is the last. */
  readonly #flows = new Map<string, { readonly flow: Flow; readonly heard: number }>();
  readonly #end: (flow: Flow) => void;
  readonly #sweep = setInterval(() => this.#forget(performance.now() - silence), silence / 2).unref();

  /** `end`: it is forgotten. */
  constructor(end: (flow: Flow) => void) {
    this.#end = end;
  }

  /** The one of that name, which has been heard now, or a new one. */
  heard(name: string, begin: () => Flow): Flow {
    const flow = this.#flows.get(name)?.flow ?? begin();
    this.#flows.delete(name);
    this.#flows.set(name, { flow, heard: performance.now() });
    if (this.#flows.size > most) this.#forgetFirst();
    return flow;
  }

  has(name: string, flow: Flow): boolean {
    return this.#flows.get(name)?.flow === flow;
  }

  /** There was nothing to be ended. */
  drop(name: string, flow: Flow): void {
    if (this.has(name, flow)) this.#flows.delete(name);
  }

  close(): void {
    clearInterval(this.#sweep);
    for (const { flow } of this.#flows.values()) this.#end(flow);
    this.#flows.clear();
  }

  #forget(before: number): void {
    for (const { heard } of this.#flows.values()) {
      if (heard > before) return;
      this.#forgetFirst();
    }
  }

  #forgetFirst(): void {
    const [first] = this.#flows;
    if (!first) return;
    this.#flows.delete(first[0]);
    this.#end(first[1].flow);
  }
}
