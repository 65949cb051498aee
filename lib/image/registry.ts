import type { Readable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { type Dispatcher, EnvHttpProxyAgent, request } from 'undici';
import { ImageError } from '../errors.js';
import type { Reference } from './reference.js';
import { basicOf, type Challenge, ownAuthorization, parseChallenges, tokenUrl } from './registry-auth.js';
import type { TransferOptions } from './types.js';

export type Answer = Dispatcher.ResponseData;
export interface Asked {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT';
  readonly url: URL;
  readonly headers?: Readonly<Record<string, string>>;
  /** Made anew for each attempt. */
  readonly body?: () => Uint8Array | Readable;
  /** Statuses that are answers, not errors. */
  readonly expect: readonly number[];
  readonly signal: AbortSignal | undefined;
}

const mostAttempts = 5;
const mostRedirects = 5;
const mostErrorBytes = 2 ** 16;
const mostTokenBytes = 2 ** 18;
const transient: readonly number[] = [408, 429, 500, 502, 503, 504];

/** One repository of one registry over HTTP: tokens, redirects, retries. distribution-spec. */
export class Registry implements AsyncDisposable {
  readonly reference: Reference;
  readonly #options: TransferOptions;
  readonly #scope: string;
  readonly #agent: EnvHttpProxyAgent;
  #authorization: Promise<string> | undefined;

  /** `auth` goes to this host (and where it asks for a token to be fetched) alone. */
  constructor(reference: Reference, access: 'pull' | 'pull,push', options: TransferOptions) {
    this.reference = reference;
    this.#options = options;
    this.#scope = `repository:${reference.repository}:${access}`;
    // Proxies by environment variables, which Node's own fetch passes over. A server that is silent for a minute is gone.
    this.#agent = new EnvHttpProxyAgent({ connectTimeout: 20_000, headersTimeout: 60_000, bodyTimeout: 60_000 });
    const own = ownAuthorization(options.auth);
    if (own !== undefined) this.#authorization = Promise.resolve(own);
  }

  url(path: string): URL {
    const { host, repository } = this.reference;
    return new URL(`${this.#options.insecure ? 'http' : 'https'}://${host}/v2/${repository}/${path}`);
  }

  /** The answer, whose body the caller reads or destroys. What may be tried again is. */
  async ask(asked: Asked): Promise<Answer> {
    for (let attempt = 1; ; attempt++) {
      let wait = backoff(attempt);
      try {
        const answer = await this.#withAuthorization(asked);
        if (asked.expect.includes(answer.statusCode)) return answer;
        if (!transient.includes(answer.statusCode) || attempt === mostAttempts) throw await refusal(asked, answer);
        wait = retryAfter(answer) ?? wait;
        await answer.body.dump();
      } catch (cause) {
        asked.signal?.throwIfAborted();
        if (cause instanceof ImageError) throw cause;
        if (attempt === mostAttempts || !isTransientError(cause)) throw failure(asked, cause, this.#options.insecure ?? false);
      }
      await pause(wait, asked.signal);
    }
  }

  /** Where the body cannot be sent a second time. */
  async askOnce(asked: Asked): Promise<Answer> {
    try {
      const answer = await this.#withAuthorization(asked);
      if (asked.expect.includes(answer.statusCode)) return answer;
      throw await refusal(asked, answer);
    } catch (cause) {
      asked.signal?.throwIfAborted();
      throw cause instanceof ImageError ? cause : failure(asked, cause, this.#options.insecure ?? false);
    }
  }

  async json(asked: Asked, most: number): Promise<{ bytes: Buffer; answer: Answer }> {
    for (let attempt = 1; ; attempt++) {
      const answer = await this.ask(asked);
      try {
        return { bytes: await wholeBody(answer.body, most, asked), answer };
      } catch (cause) {
        asked.signal?.throwIfAborted();
        if (cause instanceof ImageError) throw cause;
        if (attempt === mostAttempts) throw failure(asked, cause, this.#options.insecure ?? false);
        await pause(backoff(attempt), asked.signal);
      }
    }
  }

  async #withAuthorization(asked: Asked): Promise<Answer> {
    const before = this.#authorization;
    const { answer, isHome } = await this.#follow(asked, await before);
    // Where a blob has been led on to may not ask for credentials: CVE-2020-15157 of containerd.
    if (answer.statusCode !== 401 || !isHome) return answer;
    const { auth } = this.#options;
    const challenges = parseChallenges([answer.headers['www-authenticate'] ?? []].flat().join(', '));
    const bearer = challenges.find(({ scheme }) => scheme === 'bearer');
    const basic = challenges.find(({ scheme }) => scheme === 'basic');
    if (auth && 'token' in auth) return answer;
    if (bearer) {
      // Several requests may have met this at the same time; a token that has expired is had anew by the first of them.
      if (this.#authorization === before) this.#authorization = this.#fetchToken(bearer, asked.signal);
    } else if (basic && auth && before === undefined) this.#authorization = Promise.resolve(basicOf(auth));
    else return answer;
    await answer.body.dump();
    const pending = this.#authorization;
    try {
      return (await this.#follow(asked, await pending)).answer;
    } catch (error) {
      if (this.#authorization === pending && error instanceof ImageError) this.#authorization = undefined;
      throw error;
    }
  }

  async #fetchToken(challenge: Challenge, signal: AbortSignal | undefined): Promise<string> {
    const { auth, insecure = false } = this.#options;
    const url = tokenUrl(challenge, this.#scope, insecure);
    const headers = auth && 'username' in auth ? { authorization: basicOf(auth) } : {};
    const asked: Asked = { method: 'GET', url, headers, expect: [200], signal };
    const answer = await request(url, { method: 'GET', headers, dispatcher: this.#agent, signal: signal ?? null });
    if (answer.statusCode !== 200) throw await refusal(asked, answer);
    const bytes = await wholeBody(answer.body, mostTokenBytes, asked);
    let token: unknown;
    try {
      const json = JSON.parse(bytes.toString()) as { token?: unknown; access_token?: unknown };
      token = json.token ?? json.access_token;
    } catch {
      // The same as none.
    }
    if (typeof token !== 'string' || !/^[\x21-\x7e]+$/.test(token)) {
      throw new ImageError('ERR_CLOISTER_REGISTRY', `${url.origin} gave no token`, { step: 'get a token' });
    }
    return `Bearer ${token}`;
  }

  async #follow(asked: Asked, authorization: string | undefined): Promise<{ answer: Answer; isHome: boolean }> {
    const { insecure = false } = this.#options;
    let { url } = asked;
    const home = this.url('').origin;
    for (let redirects = 0; ; redirects++) {
      // Blobs are often somewhere else, and credentials are nobody else's business.
      const isHome = url.origin === home;
      const headers = { ...asked.headers, ...(authorization !== undefined && isHome ? { authorization } : {}) };
      const answer = await request(url, {
        method: asked.method,
        headers,
        dispatcher: this.#agent,
        signal: asked.signal ?? null,
        ...(asked.body ? { body: asked.body() } : {}),
      });
      const location = [answer.headers['location'] ?? []].flat()[0];
      if (![301, 302, 303, 307, 308].includes(answer.statusCode) || location === undefined || asked.body) return { answer, isHome };
      await answer.body.dump();
      const next = URL.canParse(location, url.href) ? new URL(location, url) : undefined;
      if (!next || redirects === mostRedirects || (next.protocol !== 'https:' && !(insecure && next.protocol === 'http:'))) {
        throw new ImageError('ERR_CLOISTER_REGISTRY', `${told(asked)}: led on to ${next ? `${next.origin}, more than allowed` : 'no address'}`, {
          step: 'ask the registry',
          hint: `At most ${mostRedirects} redirects are followed, and none from https to http.`,
        });
      }
      url = next;
    }
  }

  /** Connections that are kept open, and what still goes through them. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }
}

const told = ({ method, url }: Asked): string => `${method} ${url.origin}${url.pathname}`;

/** A fifth of a second, and twice as long each time; not all at the same moment. */
export const backoff = (attempt: number): number => 200 * 2 ** (attempt - 1) * (0.75 + Math.random() / 2);

export async function pause(milliseconds: number, signal: AbortSignal | undefined): Promise<void> {
  await delay(milliseconds, undefined, signal ? { signal } : {}).catch(() => signal?.throwIfAborted());
}

function retryAfter(answer: Answer): number | undefined {
  const text = [answer.headers['retry-after'] ?? []].flat()[0];
  const seconds = text === undefined ? Number.NaN : /^\d+$/.test(text) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return Number.isFinite(seconds) ? Math.min(Math.max(seconds, 0), 60) * 1000 : undefined;
}

export function isTransientError(cause: unknown): boolean {
  const { code = '', name = '' } = cause as NodeJS.ErrnoException;
  return (
    ['ECONNRESET', 'ECONNREFUSED', 'ECONNABORTED', 'EPIPE', 'ETIMEDOUT', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH'].includes(code) ||
    (code.startsWith('UND_ERR_') && !['UND_ERR_INVALID_ARG', 'UND_ERR_ABORTED', 'UND_ERR_NOT_SUPPORTED'].includes(code)) ||
    name === 'HTTPParserError'
  );
}

async function wholeBody(body: Answer['body'], most: number, asked: Asked): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += (chunk as Buffer).length;
    if (size > most) {
      body.destroy();
      throw new ImageError('ERR_CLOISTER_IMAGE', `${told(asked)}: the answer is bigger than ${most} bytes`, { step: 'ask the registry' });
    }
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks);
}

const hints: Readonly<Record<number, string>> = {
  401: 'Give `auth`: { username, password } or { token }. Registries also say so of repositories that do not exist.',
  403: 'These credentials do not allow it.',
  404: 'Check the name and the tag.',
  429: 'The registry limits how much is asked for: wait, or give `auth`.',
};

async function refusal(asked: Asked, answer: Answer): Promise<ImageError> {
  const { statusCode } = answer;
  let said = '';
  try {
    const bytes = await wholeBody(answer.body, mostErrorBytes, asked);
    const { errors } = JSON.parse(bytes.toString()) as { errors?: { code?: unknown; message?: unknown }[] };
    said = (errors ?? []).map(({ code, message }) => ` ${String(code)}: ${String(message)}`).join(';');
  } catch {
    // Not every server speaks the protocol's way of saying no.
  }
  const printable = said.replace(/[^\x20-\x7e]/g, '?').slice(0, 300);
  return new ImageError(statusCode === 404 ? 'ERR_CLOISTER_NOT_FOUND' : 'ERR_CLOISTER_REGISTRY', `${told(asked)}: ${statusCode}${printable}`, {
    step: 'ask the registry',
    hint: hints[statusCode],
  });
}

export function failure(asked: Asked, cause: unknown, insecure: boolean): ImageError {
  const { code, message } = cause as NodeJS.ErrnoException;
  const isTls = /wrong version number|EPROTO|ERR_SSL/i.test(`${code} ${message}`);
  return new ImageError('ERR_CLOISTER_REGISTRY', `${told(asked)}: ${message.trim()}`, {
    step: 'ask the registry',
    cause,
    hint: isTls && !insecure ? 'It seems to speak plain http, which is used only with `insecure: true`.' : undefined,
  });
}
