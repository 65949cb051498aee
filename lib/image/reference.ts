import { optionError } from '../errors.js';
import { type Digest, isDigest } from './digest.js';

/** Which image, of which registry. distribution-spec, "Pulling manifests"; the short names are Docker's. */
export interface Reference {
  /** host[:port] */
  readonly host: string;
  readonly repository: string;
  readonly tag: string | undefined;
  readonly digest: Digest | undefined;
}

const component = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*';
const path = new RegExp(`^${component}(?:/${component})*$`);
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const hostPattern = /^(?:[A-Za-z0-9](?:[A-Za-z0-9-.]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?$/;

export function parseReference(text: unknown, option = 'reference'): Reference {
  const wrong = (): never => {
    throw optionError(option, "[host[:port]/]path[:tag][@sha256:…], such as 'debian:12' or 'localhost:5000/app'", text);
  };
  if (typeof text !== 'string' || text.length > 1024) return wrong();
  const [, beforeDigest = '', digest] = /^([^@]*)(?:@(.*))?$/s.exec(text) ?? [];
  if (digest !== undefined && !isDigest(digest)) return wrong();
  const slash = beforeDigest.indexOf('/');
  const first = slash < 0 ? '' : beforeDigest.slice(0, slash);
  const hasHost = /[.:]/.test(first) || first === 'localhost';
  const rest = hasHost ? beforeDigest.slice(slash + 1) : beforeDigest;
  const colon = rest.lastIndexOf(':');
  const tag = colon < 0 ? undefined : rest.slice(colon + 1);
  const name = colon < 0 ? rest : rest.slice(0, colon);
  if (!path.test(name) || name.length > 255 || (tag !== undefined && !tagPattern.test(tag)) || (hasHost && !hostPattern.test(first))) return wrong();
  const ofDocker = !hasHost || first === 'docker.io' || first === 'index.docker.io';
  return {
    host: ofDocker ? 'registry-1.docker.io' : first,
    repository: ofDocker && !name.includes('/') ? `library/${name}` : name,
    tag: tag ?? (digest === undefined ? 'latest' : undefined),
    digest,
  };
}

/** `host[:port][/prefix]` → the same image there. */
export function onMirror(reference: Reference, mirror: string, option: string): Reference {
  const slash = mirror.indexOf('/');
  const [host, prefix] = slash < 0 ? [mirror, ''] : [mirror.slice(0, slash), mirror.slice(slash + 1)];
  if (!hostPattern.test(host) || (slash >= 0 && !path.test(prefix))) throw optionError(option, "'host[:port]', with a path below it if need be", mirror);
  return { ...reference, host, repository: prefix === '' ? reference.repository : `${prefix}/${reference.repository}` };
}
