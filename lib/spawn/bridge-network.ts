import { existsSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import type { NativeWatcher } from '../../types/native.js';
import { IsolationError } from '../errors.js';
import { checked, native } from '../native.js';
import type { Bridge } from '../network/bridge.js';
import { resolvConf } from '../network/hosts.js';
import { type IpAddress, parseAddress } from '../network/ip.js';
import type { Seat } from '../network/seat.js';
import type { PlanBuilder } from '../plan/builder.js';
import * as k from '../plan/constants.js';
import { cwd, type Slot } from '../plan/steps.js';
import { OverlayRootfs } from '../rootfs/overlay-rootfs.js';
import type { BridgeSetting } from './bridge-settings.js';
import type { MountSetting } from './mount-settings.js';
import type { Settings } from './settings.js';

/** Descriptors that the plan takes: where the child sends its network, and what says that it has. */
export interface NetworkChannel {
  readonly socket: number;
  readonly sent: number;
}

/**
 * The network of one spawn that is on a bridge. It has to be the child's own, so that what is asked for inside (a capability, a sysctl)
 * counts in it: so the child sends it out as soon as it is there, builds its root meanwhile, and waits before it executes the program
 * until we have connected it.
 *
 *   child: send_fd(network), write(sent) ─→ Seat.connect ─→ one byte ─→ read_head
 */
export class BridgeNetwork {
  readonly seat: Seat;
  readonly channel: NetworkChannel;
  readonly mounts: readonly MountSetting[];
  readonly #bridge: Bridge;
  readonly #names: Readonly<Record<string, string>>;
  #ours: number;
  #watched: number;
  #watcher: NativeWatcher | undefined;
  #connecting: Promise<void> = Promise.resolve();

  private constructor(bridge: Bridge, seat: Seat, mounts: readonly MountSetting[], names: Readonly<Record<string, string>>) {
    this.#bridge = bridge;
    this.#names = names;
    this.seat = seat;
    this.mounts = mounts;
    const [ours, theirs] = checked(native().socketPair(), 'socketpair', 'connect the network') as [number, number];
    const sent = checked(native().eventFd(), 'eventfd2', 'connect the network');
    this.#ours = ours;
    this.#watched = checked(native().duplicate(sent, 0), 'fcntl', 'connect the network');
    this.channel = { socket: theirs, sent };
  }

  static async for(settings: Settings, { bridge, seat: options, dns }: BridgeSetting): Promise<BridgeNetwork> {
    const seat = await bridge.seat(options);
    try {
      return new BridgeNetwork(bridge, seat, settings.namespaces.mount === 'new' ? filesOf(settings, bridge, seat, dns) : [], dns);
    } catch (error) {
      await bridge.leave(seat);
      throw error;
    }
  }

  /** What /etc/hosts says, for who asks otherwise. */
  neighbours(name: string): readonly IpAddress[] {
    const own = Object.entries(this.#names).flatMap(([key, address]) => (key.toLowerCase() === name ? [parseAddress(address) as IpAddress] : []));
    return own.length > 0 ? own : this.seat.addressesOf(name);
  }

  /** From now on the child is waited for. `failed`: it waits for ever, and has to be killed. */
  start(failed: (error: IsolationError) => void): void {
    const connect = async (network: number): Promise<void> => {
      try {
        await this.seat.connect({ type: 'net', fd: network });
        // Nobody may be left to hear it.
        native().writeText(this.#ours, '1');
      } catch (error) {
        failed(error as IsolationError);
      } finally {
        native().close(network);
      }
    };
    this.#watcher = new (native().Watcher)(this.#watched, false, () => {
      this.#watcher?.close();
      const network = native().receiveDescriptor(this.#ours);
      if (network >= 0) this.#connecting = connect(network);
      else failed(IsolationError.ofErrno('ERR_CLOISTER_STEP', network, { step: 'receive the network', syscall: 'recvmsg' }));
    });
    this.#watched = -1;
  }

  async release(): Promise<void> {
    this.#watcher?.close();
    await this.#connecting;
    for (const fd of [this.#ours, this.#watched]) if (fd >= 0) native().close(fd);
    this.#ours = this.#watched = -1;
    // What is not removed now has our name on it: orphans.ts.
    await this.#bridge.leave(this.seat).catch(() => {});
  }
}

/** Of the child, as soon as it is in its network. */
export function handOutNetwork(plan: PlanBuilder, socket: Slot, sent: Slot): void {
  plan.label('hand out the network');
  const network = plan.open('network', 'openat', [cwd, '/proc/self/ns/net', k.O_RDONLY | k.O_CLOEXEC, 0]);
  plan.add('send_fd', [socket, network]);
  plan.add('write', [sent, new Uint8Array(new BigUint64Array([1n]).buffer)]);
}

export function awaitNetwork(plan: PlanBuilder, socket: Slot): void {
  plan.label('wait for the network').add('read_head', [socket]);
}

/** resolver(5), hosts(5): unless the caller mounts its own. A directory of the caller's gets no file that it does not have. */
function filesOf(settings: Settings, bridge: Bridge, seat: Seat, dns: Readonly<Record<string, string>>): MountSetting[] {
  const { rootfs, readonly, mounts } = settings;
  const wanted = (path: string): boolean =>
    !mounts.some(({ target }) => target === path) && (typeof rootfs !== 'string' || readonly || existsSync(join(rootfs, path)));
  const files: MountSetting[] = [];
  if (wanted('/etc/hosts')) {
    files.push({ type: 'bind', source: seat.hostsFile(dns), target: '/etc/hosts', readonly: true, recursive: false, idMap: undefined });
  }
  if (wanted('/etc/resolv.conf')) {
    // The host's is often a link to a file of a daemon's in /run, which is empty inside.
    const target = rootfs instanceof OverlayRootfs || typeof rootfs === 'string' || settings.image ? '/etc/resolv.conf' : realpathOr('/etc/resolv.conf');
    files.push({ type: 'file', target, contents: Buffer.from(resolvConf(bridge.masquerades)), mode: 0o644 });
  }
  return files;
}

function realpathOr(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
