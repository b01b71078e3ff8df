/** The accessibility checks of axe, run in an open page. */

import { readFile } from 'node:fs/promises'
import type { Page } from 'playwright-core'

interface Violation {
  readonly id: string
  readonly nodes: readonly { readonly html: string; readonly failureSummary: string }[]
}

/** What axe finds wrong with the page as it is now, one line a rule. */
export async function violations(page: Page): Promise<string[]> {
  await page.evaluate(await readFile(require.resolve('axe-core/axe.min.js'), 'utf8'))
  return page.evaluate(async () => {
    const { axe } = window as unknown as {
      axe: { run(context: Document, options: object): Promise<{ violations: Violation[] }> }
    }
    const found = await axe.run(document, { preload: false })
    return found.violations.map(({ id, nodes }) => `${id}: ${nodes[0]?.html} ${nodes[0]?.failureSummary}`)
  })
}

/** The same in light and dark. */
export async function violationsOfSchemes(page: Page): Promise<string[]> {
  const all: string[] = []
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme })
    // Colours fade into one another.
    await page.waitForFunction(() => document.getAnimations().length === 0)
    all.push(...(await violations(page)).map((violation) => `${colorScheme}: ${violation}`))
  }
  return all
}
