package codec

import (
	"math"

	"github.com/gosnmp/gosnmp"
)

// Type says what a Value holds.
type Type uint8

// The types of values. The tags of SNMP's numbers fall together where they mean the
// same.
const (
	Absent     Type = iota // noSuchObject, noSuchInstance, or nothing that can be read
	EndOfView              // endOfMibView
	Signed                 // INTEGER
	Unsigned32             // Gauge32, Counter32, TimeTicks
	Unsigned64             // Counter64
	Text                   // OCTET STRING
	OID                    // OBJECT IDENTIFIER, with a leading dot
	Float                  // Opaque float or double
)

// Value is one value of an answer. The zero Value is absent.
type Value struct {
	Type Type
	bits uint64
	text string
}

// Number returns the 64 bits of an integer, two's complement if it is Signed.
func (v Value) Number() uint64 { return v.bits }

// Float returns the number of a Float.
func (v Value) Float() float64 { return math.Float64frombits(v.bits) }

// Text returns the bytes of a Text or an OID.
func (v Value) Text() string { return v.text }

func valueOf(p *gosnmp.SnmpPDU) Value {
	switch x := p.Value.(type) {
	case int:
		return Value{Type: Signed, bits: uint64(x)}
	case uint:
		if x > math.MaxUint32 {
			return Value{} // more than the type can hold
		}
		return Value{Type: Unsigned32, bits: uint64(x)}
	case uint32:
		return Value{Type: Unsigned32, bits: uint64(x)}
	case uint64:
		return Value{Type: Unsigned64, bits: x}
	case float32:
		return Value{Type: Float, bits: math.Float64bits(float64(x))}
	case float64:
		return Value{Type: Float, bits: math.Float64bits(x)}
	case []byte:
		if p.Type == gosnmp.OctetString {
			return Value{Type: Text, text: string(x)}
		}
	case string:
		switch p.Type {
		case gosnmp.ObjectIdentifier:
			return Value{Type: OID, text: x}
		case gosnmp.IPAddress:
			return Value{Type: Text, text: x}
		}
	}
	if p.Type == gosnmp.EndOfMibView {
		return Value{Type: EndOfView}
	}
	return Value{}
}
