import { rmSync } from 'node:fs'

/** Removes what the set-up made. */
export default function teardown(): void {
  const folder = process.env.LUCID_TEST_DATA
  if (folder) rmSync(folder, { recursive: true, force: true })
}
