// Package kemi builds pipelines that meter and watch infrastructure.
package kemi
