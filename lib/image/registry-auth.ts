import { ImageError } from '../errors.js';
import type { TransferOptions } from './types.js';

// How a registry says what it wants to see, and how that is had: RFC 9110, 11.3; the token protocol of distribution
// ("Token Authentication Specification").

export interface Challenge {
  readonly scheme: 'bearer' | 'basic';
  readonly parameters: Readonly<Record<string, string>>;
}

/** The challenges of a WWW-Authenticate header that we can answer. */
export function parseChallenges(header: string): Challenge[] {
  const result: Challenge[] = [];
  const pattern = /\s*,?\s*(?:([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]*))|([A-Za-z][A-Za-z0-9_-]*)(?=\s|,|$))/gy;
  let current: { scheme: string; parameters: Record<string, string> } | undefined;
  for (let match = pattern.exec(header); match; match = pattern.exec(header)) {
    const [, key, quoted, plain, scheme] = match;
    if (scheme !== undefined) {
      current = { scheme: scheme.toLowerCase(), parameters: {} };
      if (current.scheme === 'bearer' || current.scheme === 'basic') result.push(current as Challenge);
    } else if (key !== undefined && current) current.parameters[key.toLowerCase()] = quoted?.replace(/\\(.)/g, '$1') ?? plain ?? '';
    if (match[0] === '') break;
  }
  return result;
}

export function basicOf({ username, password }: { username: string; password: string }): string {
  return `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`;
}

/** Where to ask for a token for this scope. The place is the registry's choice: never one that anybody on the way could read. */
export function tokenUrl({ parameters }: Challenge, scope: string, insecure: boolean): URL {
  const { realm = '', service } = parameters;
  const url = URL.canParse(realm) ? new URL(realm) : undefined;
  if (!url || (url.protocol !== 'https:' && !(insecure && url.protocol === 'http:'))) {
    throw new ImageError('ERR_CLOISTER_REGISTRY', `the registry asks for a token from a place that is not taken: ${JSON.stringify(realm.slice(0, 200))}`, {
      step: 'get a token',
      hint: 'It has to be an https address (or http, with `insecure: true`).',
    });
  }
  if (service !== undefined) url.searchParams.set('service', service);
  url.searchParams.set('scope', parameters['scope'] ?? scope);
  return url;
}

export function ownAuthorization(auth: TransferOptions['auth']): string | undefined {
  return auth && 'token' in auth ? `Bearer ${auth.token}` : undefined;
}
