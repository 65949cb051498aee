import { IsolationError } from '../errors.js';
import { openNamespaceOf } from '../namespace/namespace.js';
import { InnerSockets } from './inner-sockets.js';
import type { NetworkSettings } from './options.js';
import { TcpPort } from './tcp-port.js';
import { UdpPort } from './udp-port.js';

/** What of a sandbox's network lives in this process, from before its start to its end. */
export class ProcessNetwork {
  ports: readonly { readonly host: number; readonly guest: number }[] = [];
  readonly #published: (TcpPort | UdpPort)[] = [];
  readonly #inside = new Inside();

  /** Rejects with `NetworkError` ERR_CLOISTER_NETWORK: a port that cannot be had. */
  static async open(settings: NetworkSettings): Promise<ProcessNetwork> {
    const network = new ProcessNetwork();
    try {
      for (const port of settings.ports) {
        const kind = port.protocol === 'tcp' ? TcpPort : UdpPort;
        network.#published.push(await kind.listen(port, network.#inside.sockets));
      }
    } catch (error) {
      network.close();
      throw error;
    }
    network.ports = settings.ports.map(({ guest }, index) => ({ host: (network.#published[index] as TcpPort).host, guest }));
    return network;
  }

  /** The program runs. */
  begin(pid: number): void {
    if (this.#published.length > 0) this.#inside.begin(pid);
  }

  close(): void {
    for (const port of this.#published) port.close();
    this.#inside.close();
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
