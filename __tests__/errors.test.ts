import { call, fromNative, LucidError } from '../ts/errors.js'

test('an error of the addon keeps code, message, hint and details', () => {
  const form = { lucid: { code: 'E_SHAPE', message: 'x is 3; expected 4', hint: 'pass 4', details: { found: 3 } } }
  const error = fromNative({ message: JSON.stringify(form), code: 'GenericFailure' }) as LucidError
  expect(error).toBeInstanceOf(LucidError)
  expect(error).toMatchObject({ code: 'E_SHAPE', message: 'x is 3; expected 4', hint: 'pass 4', details: { found: 3 } })
  expect(JSON.parse(JSON.stringify(error))).toEqual({
    code: 'E_SHAPE',
    message: 'x is 3; expected 4',
    hint: 'pass 4',
    details: { found: 3 },
  })
})

test.each(['InvalidArg', 'StringExpected', 'NumberExpected'])('a wrong argument (%s) is E_TYPE', (code) => {
  expect(fromNative({ message: 'no', code })).toMatchObject({ code: 'E_TYPE' })
})

test('a caught panic is E_INTERNAL with the original as cause', () => {
  const original = { message: 'index out of bounds', code: 'GenericFailure' }
  expect(fromNative(original)).toMatchObject({ code: 'E_INTERNAL', cause: original })
})

test('call lets an error of our own through unchanged', () => {
  const own = new LucidError('E_OPTION', 'no')
  expect(() =>
    call(() => {
      throw own
    }),
  ).toThrow(own)
})

test('details cannot be changed afterwards', () => {
  const error = new LucidError('E_OPTION', 'no', { details: { option: 'a' } })
  expect(Object.isFrozen(error.details)).toBe(true)
})
