import { readFileSync } from 'node:fs'

/** Version of this package. */
export function version(): string {
  // Relative to dist/cli, and to ts/cli when run from the sources.
  const file = new URL('../../package.json', import.meta.url)
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version
}
