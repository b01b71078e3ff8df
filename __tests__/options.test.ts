import { LucidError, describe as show } from '../ts/errors.js'
import { checkOptions, editDistance, nearest, toJson } from '../ts/options.js'
import { errorOf } from './support/data.js'

describe('names', () => {
  test('distance counts insertions, deletions, replacements and swaps', () => {
    expect(editDistance('', 'abc')).toBe(3)
    expect(editDistance('kitten', 'sitting')).toBe(3)
    expect(editDistance('ab', 'ba')).toBe(1)
  })

  test('the nearest name is offered only where it is near', () => {
    expect(nearest('dshard', ['dShared', 'dPrivate'])).toBe('dShared')
    expect(nearest('banana', ['dShared', 'dPrivate'])).toBeUndefined()
  })
})

describe('checkOptions', () => {
  test('an unknown name is refused with the nearest known one', async () => {
    const error = await errorOf(() => checkOptions('train', { activatons: 'a' }, ['activations', 'out']))
    expect(error).toBeInstanceOf(LucidError)
    expect(error.code).toBe('E_UNKNOWN_OPTION')
    expect(error.message).toContain("'activatons'")
    expect(error.message).toContain("did you mean 'activations'?")
    expect(error.details).toMatchObject({ found: 'activatons', suggestion: 'activations' })
  })

  test('a missing option is named', async () => {
    const error = await errorOf(() => checkOptions<{ out?: string }>('train', {}, ['out'], ['out']))
    expect(error.code).toBe('E_OPTION')
    expect(error.details).toMatchObject({ option: 'out' })
  })

  test('what is no object is refused', async () => {
    expect((await errorOf(() => checkOptions('train', null as unknown as object, []))).code).toBe('E_OPTION')
    expect((await errorOf(() => checkOptions('train', [], []))).code).toBe('E_OPTION')
  })
})

test('infinity and NaN survive JSON as text', () => {
  expect(toJson({ a: Number.POSITIVE_INFINITY, b: Number.NaN, c: 1.5, d: 7n })).toBe(
    '{"a":"inf","b":"NaN","c":1.5,"d":7}',
  )
})

test('values are described briefly', () => {
  expect(show('a')).toBe("'a'")
  expect(show(new Float32Array(3))).toBe('Float32Array of 3 elements')
  expect(show({ a: 'x'.repeat(200) }).length).toBeLessThanOrEqual(80)
})
