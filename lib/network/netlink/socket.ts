import { errnoText, IsolationError, NetworkError } from '../../errors.js';
import { networkAdvice } from '../../host/network-hints.js';
import { enter } from '../../namespace/enter.js';
import { native } from '../../native.js';
import { PlanBuilder } from '../../plan/builder.js';
import * as k from '../../plan/constants.js';
import { runPlan } from '../../plan/run.js';
import { int32 } from '../../plan/structs.js';
import {
  type Answer,
  decodeAttributes,
  decodeMessages,
  encodeMessage,
  NLM_F_ACK,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLMSG_DONE,
  NLMSG_ERROR,
  type Request,
  textOf,
} from './message.js';

const AF_NETLINK = 16;
const SOCK_RAW = 3;
// linux/netlink.h
const protocols = { route: 0, netfilter: 12 } as const;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;
const NLMSGERR_ATTR_MSG = 1;

/** A namespace of networks, by its descriptor. */
export interface Network {
  readonly type: 'net';
  readonly fd: number;
}

/**
 * A conversation with the kernel about one network: netlink(7). The socket keeps the namespace that it was made in alive, and
 * shows that one, wherever we are.
 */
export class NetlinkSocket implements Disposable {
  readonly #fd: number;
  #sequence = 0;
  #closed = false;
  /** One exchange after the other: answers do not say whose they are. */
  #last: Promise<unknown> = Promise.resolve();

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Takes the descriptor of one that was made elsewhere. */
  static of(fd: number): NetlinkSocket {
    return new NetlinkSocket(fd);
  }

  /** Without `network`, that of this process. */
  static async open(protocol: keyof typeof protocols, network?: Network): Promise<NetlinkSocket> {
    const plan = new PlanBuilder().in('parent');
    if (network) enter(plan, network);
    plan.label(`talk to the kernel about ${protocol === 'route' ? 'links and routes' : 'packet filters'}`);
    const socket = plan.open('netlink socket', 'socket', [AF_NETLINK, SOCK_RAW | k.SOCK_CLOEXEC, protocols[protocol]]);
    // The kernel's own words for a refusal, and without the request that they are about.
    plan.add('setsockopt', [socket, SOL_NETLINK, NETLINK_EXT_ACK, int32(1)]);
    plan.add('setsockopt', [socket, SOL_NETLINK, NETLINK_CAP_ACK, int32(1)]);
    plan.keep(socket);
    return new NetlinkSocket((await runPlan(plan))(socket));
  }

  /**
   * Sends them as one: nobody who kills us comes between two of them. The kernel goes on after one that it refuses. Rejects with the
   * first refusal, a NetworkError ERR_CLOISTER_NETWORK.
   */
  async request(...requests: readonly Request[]): Promise<Answer[]> {
    const last = requests.length - 1;
    return this.#exchange(requests.map((each, index) => (index === last ? { ...each, flags: each.flags | NLM_F_ACK } : each)));
  }

  /** All objects of a kind. */
  async dump(request: Request): Promise<Answer[]> {
    for (;;) {
      const answers = await this.#exchange([{ ...request, flags: request.flags | NLM_F_DUMP }]);
      // The list has changed between two parts of it: it is asked for again, as linux/netlink.h wants it.
      if (!answers.some(({ flags }) => flags & NLM_F_DUMP_INTR)) return answers;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    void this.#last.finally(() => native().close(this.#fd));
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #exchange(requests: readonly Request[]): Promise<Answer[]> {
    // Its number may be somebody else's by now.
    if (this.#closed) return Promise.reject(new IsolationError('ERR_CLOISTER_DISPOSED', 'this network has been deleted'));
    const turn = this.#last.then(() => this.#talk(requests));
    this.#last = turn.catch(() => {});
    return turn;
  }

  async #talk(requests: readonly Request[]): Promise<Answer[]> {
    const first = this.#sequence + 1;
    this.#sequence += requests.length;
    const bytes = Buffer.concat(requests.map((request, index) => encodeMessage(request, first + index)));
    const answered = await native().netlinkExchange(this.#fd, bytes);
    const about = (sequence: number): Request => requests[sequence - first] ?? (requests[0] as Request);
    if (typeof answered === 'number') throw refused(about(first), answered, undefined);
    const answers: Answer[] = [];
    for (const answer of decodeMessages(answered)) {
      if (answer.type !== NLMSG_ERROR && answer.type !== NLMSG_DONE) answers.push(answer);
      // What ended a dump is told by its last message, too.
      else if (answer.payload.length >= 4 && answer.payload.readInt32LE(0) < 0)
        throw refused(about(answer.sequence), answer.payload.readInt32LE(0), kernelsWords(answer));
    }
    return answers;
  }
}

/** Behind the header of the request, or the whole of it if it is not left out (netlink_ack). */
function kernelsWords({ type, flags, payload }: Answer): string | undefined {
  if (!(flags & NLM_F_ACK_TLVS)) return undefined;
  const about = type === NLMSG_DONE ? 4 : 4 + (flags & NLM_F_CAPPED ? 16 : (payload.readUInt32LE(4) + 3) & ~3);
  return textOf(decodeAttributes(payload.subarray(about)).get(NLMSGERR_ATTR_MSG));
}

function refused({ step, path }: Request, errno: number, words: string | undefined): NetworkError {
  const advice = networkAdvice({ step, path, errno: -errno, words });
  return NetworkError.ofErrno('ERR_CLOISTER_NETWORK', errno, {
    step,
    path,
    syscall: 'sendmsg',
    what: advice?.what ?? `${errnoText(errno)}${words === undefined ? '' : ` (${words})`}`,
    hint: advice?.hint,
    evidence: advice?.evidence,
  }) as NetworkError;
}
