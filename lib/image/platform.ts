import { ImageError } from '../errors.js';
import { listed } from '../text.js';
import type { Descriptor, Platform } from './manifest.js';

const architectures: Readonly<Record<string, string>> = { x64: 'amd64', ia32: '386', loong64: 'loong64' };

/** As Go names it (GOARCH), which image-spec's config.md asks for. */
export function ownPlatform(): { os: string; architecture: string } {
  return { os: 'linux', architecture: architectures[process.arch] ?? process.arch };
}

/** arm64 is v8 and arm is v7 where nothing is said (containerd's platforms.Normalize). */
const defaultVariants: Readonly<Record<string, string>> = { arm64: 'v8', arm: 'v7' };

export function fits(wanted: Platform, offered: Platform): boolean {
  if ((offered.os ?? 'linux') !== (wanted.os ?? 'linux') || offered.architecture !== wanted.architecture) return false;
  const variant = (platform: Platform): string => platform.variant || (defaultVariants[platform.architecture ?? ''] ?? '');
  return variant(wanted) === variant(offered);
}

/** The manifest for this platform; one that names no platform is for any. */
export function choose(manifests: readonly Descriptor[], asked: Platform | undefined): Descriptor {
  const wanted = { ...ownPlatform(), ...asked };
  // Attestations of BuildKit stand beside images as unknown/unknown.
  const named = manifests.filter(({ platform }) => platform?.architecture !== undefined);
  const found =
    named.find(({ platform }) => fits(wanted, platform as Platform)) ??
    (wanted.variant === undefined ? named.find(({ platform }) => fits(wanted, { ...platform, variant: '' })) : undefined) ??
    (named.length === 0 && manifests.length === 1 ? manifests[0] : undefined);
  if (found) return found;
  const offered = named.map(({ platform }) => platformText(platform as Platform)).filter((text) => text !== 'unknown/unknown');
  throw new ImageError(
    'ERR_CLOISTER_NOT_FOUND',
    `there is no image for ${platformText(wanted)}; there is ${offered.length > 0 ? listed(offered) : 'none for any platform'}`,
    {
      step: 'choose the platform',
      hint: 'Ask for one of those by `platform: { os, architecture, variant }`.',
    },
  );
}

export function platformText({ os, architecture, variant }: Platform): string {
  return [os ?? 'linux', architecture ?? 'unknown', variant].filter(Boolean).join('/');
}
