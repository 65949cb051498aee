import { IsolationError } from '../errors.js';
import { openNamespaceOf } from '../namespace/namespace.js';
import type { Denial } from '../spawn/types.js';
import { Egress } from './egress/egress.js';
import type { Neighbours } from './egress/gate.js';
import { Policy } from './egress/policy.js';
import { InnerSockets } from './inner-sockets.js';
import type { NetworkSettings } from './options.js';
import { pacesOf } from './pace.js';
import { TcpPort } from './tcp-port.js';
import { UdpPort } from './udp-port.js';

/** What of a sandbox's network lives in this process, from before its start to its end. */
export class ProcessNetwork {
  ports: readonly { readonly host: number; readonly guest: number }[] = [];
  readonly #published: (TcpPort | UdpPort)[] = [];
  readonly #inside = new Inside();
  #egress: Egress | undefined;

  /** Rejects with `NetworkError` ERR_CLOISTER_NETWORK: a port that cannot be had. `neighbours`: on a bridge. */
  static async open(settings: NetworkSettings, neighbours: Neighbours): Promise<ProcessNetwork> {
    const network = new ProcessNetwork();
    const paces = pacesOf(settings.bandwidth ?? {});
    try {
      for (const port of settings.ports) {
        const kind = port.protocol === 'tcp' ? TcpPort : UdpPort;
        network.#published.push(await kind.listen(port, network.#inside.sockets, paces));
      }
      if (settings.egress) network.#egress = new Egress(new Policy(settings.egress, settings.dns), neighbours, paces);
    } catch (error) {
      network.close();
      throw error;
    }
    network.ports = settings.ports.map(({ guest }, index) => ({ host: (network.#published[index] as TcpPort).host, guest }));
    return network;
  }

  /** For the plan, which takes it: where the child sends the sockets that it opens for us. */
  get channel(): number | undefined {
    return this.#egress?.theirs;
  }

  /** The program runs. `root`: the process that all others inside descend from. */
  begin(pid: number, root: number, tell: (denial: Denial) => void): void {
    if (this.#published.length > 0) this.#inside.begin(pid);
    this.#egress?.begin(root, tell);
  }

  close(): void {
    for (const port of this.#published) port.close();
    this.#inside.close();
    this.#egress?.close();
  }
}

/** Sockets inside, for who may have to wait until there is an inside. */
class Inside {
  begin!: (pid: number) => void;
  close!: () => void;
  readonly sockets: Promise<InnerSockets>;

  constructor() {
    this.sockets = new Promise((resolve, reject) => {
      this.begin = (pid) => {
        try {
          const network = openNamespaceOf(pid, 'net');
          const sockets = new InnerSockets(network);
          this.close = () => {
            sockets.close();
            network.close();
          };
          resolve(sockets);
        } catch (error) {
          // It has ended already.
          reject(error);
        }
      };
      this.close = () => reject(new IsolationError('ERR_CLOISTER_NOT_STARTED', 'it has ended before its network could be used'));
    });
    this.sockets.catch(() => {});
  }
}
