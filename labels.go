package kemi

import "github.com/kemi-go/kemi/internal/intern"

// LabelsOfSet returns Labels of a set that was looked up by bytes, without making
// strings first. It is for the codecs of this module, as nobody else can name what it
// takes: use [NewLabels].
func LabelsOfSet(s *intern.Set) Labels { return Labels{s} }
