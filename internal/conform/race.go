//go:build race

package conform

// RaceDetector tells whether the program was built with it. It ends a test that
// breaks a rule on purpose, and empties pools at random.
const RaceDetector = true
