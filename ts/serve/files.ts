/** Which file of a report an address means; nothing outside the report, whatever the address says. */

import { realpath, stat } from 'node:fs/promises'
import { extname, join, sep } from 'node:path'

const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json; charset=utf-8',
  '.jpg': 'image/jpeg',
  '.png': 'image/png',
}

/** A file that may be sent. */
export interface ServedFile {
  readonly path: string
  readonly type: string
  readonly bytes: number
}

/** The file below `root` (already resolved) that the path of an address names, or nothing. */
export async function servedFile(root: string, address: string): Promise<ServedFile | undefined> {
  let path: string
  try {
    path = decodeURIComponent(address)
  } catch {
    return undefined
  }
  // Drive letters, streams and other systems' separators are no names of a report's files.
  if (!path.startsWith('/') || /[\\:\0%]/.test(path)) return undefined
  const names = path === '/' ? ['index.html'] : path.slice(1).split('/')
  if (names.some((name) => name === '' || name.startsWith('.'))) return undefined
  const type = TYPES[extname(names.at(-1) ?? '')]
  if (type === undefined) return undefined
  try {
    // A link may lead out of the report: what counts is where the file really is.
    const real = await realpath(join(root, ...names))
    if (!real.startsWith(root + sep)) return undefined
    const found = await stat(real)
    return found.isFile() ? { path: real, type, bytes: found.size } : undefined
  } catch {
    return undefined
  }
}
